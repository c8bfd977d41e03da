"""The viewers that results are exported to; nothing is imported for their names (see `glas3d.report.viewers`)."""

VIEWERS = ("fsleyes", "itksnap", "freeview", "mricrogl", "mricron")
