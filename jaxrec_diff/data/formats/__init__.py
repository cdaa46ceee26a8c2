"""Readers of files, a module a family of formats; `tables.FORMATS` lists them by ending."""
