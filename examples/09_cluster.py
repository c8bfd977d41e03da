"""
On a cluster: many workers with Dask
====================================

A study of thousands of scans runs on any Dask cluster. The results do not depend on the number of workers, and a run that
was stopped resumes. Here the cluster is two processes of this computer, started as they are on another one; on SLURM, replace
it by ``dask_jobqueue.SLURMCluster``.

Needs ``pip install "glas3d[study]"``.
"""

# %%
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
from distributed import Client, SubprocessCluster, get_task_stream

from glas3d.simulate import Simulation, write_dataset
from glas3d.study import explain_cohort, read_cohort

OUT = Path("glas3d-examples") / "09_cluster"
shutil.rmtree(OUT, ignore_errors=True)  # results of an earlier run

write_dataset(OUT / "data", Simulation(participants=4, seed=90, resolution=8))
cohort = read_cohort(OUT / "data", suffix="T1w", desc="preproc", case="AD", control="NC")

# %%
# One thread for each worker: small 3D convolutions gain little from a second one. Batch size, engine and threads are resolved
# once, by the first worker, so that all of them give the same bits. The engine and the threads are given here, because the
# fastest engine is another one on another machine or day. That it is not recorded who trained the shipped model is warned
# of: nobody of this study did.

options = {"fusion": "shadow", "engine": "eager", "threads": 1}
cluster = SubprocessCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
with cluster, Client(cluster) as client, get_task_stream(client) as stream:
    result = explain_cohort(cohort, OUT / "results", "adnc-simulated", scheduler=cluster.scheduler_address, **options)
print(result.outcomes[["participant_id", "status"]].to_string(index=False))

# %%
# A run by this process alone gives the same bits.

alone = explain_cohort(cohort, OUT / "alone", "adnc-simulated", **options)
maps = sorted(path.relative_to(OUT / "results") for path in (OUT / "results").glob("sub-*/anat/*_statmap.nii.gz"))
same = sum((OUT / "results" / path).read_bytes() == (OUT / "alone" / path).read_bytes() for path in maps)
print(f"maps with the same bytes: {same} of {len(maps)}")

# %%
# Which worker explained which scan, and when. The first scan of a worker takes longer, because it loads the model.

tasks = [each for each in stream.data if str(each["key"]).startswith("explain_participant")]
workers = sorted({each["worker"] for each in tasks})
spans = [(each["worker"], part) for each in tasks for part in each["startstops"] if part["action"] == "compute"]
begin = min(part["start"] for _, part in spans)
figure, axis = plt.subplots(figsize=(9, 1.2 + 0.6 * len(workers)), layout="constrained")
for worker, part in spans:
    axis.barh(
        workers.index(worker),
        part["stop"] - part["start"],
        left=part["start"] - begin,
        color="#4285b4",
        edgecolor="white",
    )
axis.set_yticks(range(len(workers)), [f"worker {number}" for number in range(1, len(workers) + 1)])
axis.invert_yaxis()
axis.set_xlabel("seconds since the first scan")
axis.set_title(f"{len(tasks)} scans on {len(workers)} workers")
figure.savefig(OUT.parent / "09_cluster.png", dpi=110)
