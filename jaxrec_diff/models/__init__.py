"""The systems, a file each, behind one contract."""
