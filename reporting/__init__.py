"""Reads run folders and turns them into pages and tables; must not know how training works."""
