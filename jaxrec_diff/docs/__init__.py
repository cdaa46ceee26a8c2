"""The documentation: guides written by hand (`pages/`), and what is made from code and results."""
