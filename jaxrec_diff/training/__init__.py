"""The one train step and the loop around it; no model is named here."""
