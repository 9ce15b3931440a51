"""Which inverted lists a query scans: those in which nearly all of its best nodes are expected."""
