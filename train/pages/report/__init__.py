"""The report of a run: what its folder holds, as charts and tables of one page."""
