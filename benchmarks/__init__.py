"""Speed and memory of an explanation, against its floor and its rivals; ``python -m benchmarks`` measures.

In the order in which a figure is made: ``workloads`` (nets and volumes), ``methods`` (GLAS and the rivals), ``checks``
(do they do the work?), ``timing`` (interleaved rounds), ``suite``, ``whole_maps``, ``recomputing``, ``roofline`` and
``memory`` (the rows), ``report`` (JSON and table). ``cold_start`` is a command of its own.
"""
