"""Speed and memory of an explanation, against its floor and its rivals; `python -m benchmarks` measures.

In the order a figure meets them: `subjects` (nets and volumes), `methods` (ours and the rivals'), `witness`
(do they do the work?), `contest` (interleaved timing), `suite` and `memory` (the rows), `report` (JSON and table).
"""
