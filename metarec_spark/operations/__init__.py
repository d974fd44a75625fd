"""Upkeep beside the night: feedback on the lists, table maintenance, erasing people."""
