"""The HTML report: one file that shows results with everything that a reader must know about them."""
