"""Two walks in cells (`# %%`), for an editor that shows them as notebooks or for plain python."""
