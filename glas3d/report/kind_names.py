"""The names of the kinds of figures, with what each shows: choices of commands and lists in pages come from here.

Nothing is imported for it. What draws each kind is in `glas3d.report.kinds`.
"""

KIND_TEXTS = {
    "regions": "the five highest-scoring regions in five colours, above axial slices (the paper's figure 12)",
    "mosaic": "axial slices of the map over the anatomy",
    "glass": "the map on a glass brain",
    "surface": "the map on the inflated cortex (fsaverage5)",
    "overlay": "maps over the picture, of an image",
    "bars": "the highest-scoring regions as bars; of a group with 95 % intervals",
    "light-shadow": "light against shadow of every region",
    "scales": "the map at each scale of the masks, and of all",
    "groups": "two groups, such as AD against NC: their means, and standardised differences with intervals",
    "stability": "how alike the regions' mean scores are in every two folds or runs",
    "methods": "how several methods rank the regions",
}
