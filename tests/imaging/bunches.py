"""Small files as nilearn's fetchers store them, so that its own fetchers run without a network."""

import json
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn import datasets

from tests.imaging.cases import SHAPE, affine

AFFINE = affine(spacing=(2, 3, 4), origin=(-6.0, -10.0, -20.0))


def block(i):
    """Return the voxels of region ``i`` of a small atlas: a block of 2 x 1 x 2 on the left (even) or right (odd)."""
    row, layer = divmod(i // 2, 4)
    return slice(0, 2) if i % 2 == 0 else slice(5, 7), slice(row, row + 1), slice(2 * layer, 2 * layer + 2)


def label_img(values, dtype=np.int16):
    """Return a small atlas: the ``i``-th value in the ``i``-th region."""
    labels = np.zeros(SHAPE, dtype)
    for i, value in enumerate(values):
        labels[block(i)] = value
    return nib.Nifti1Image(labels, AFFINE, dtype=dtype)


def map_img(n, peaks=(1.0,), dtype=np.float32, faint=0.1):
    """Return ``n`` maps, each with its peak in its own block and a share of the peak one voxel further in y."""
    maps = np.zeros((*SHAPE, n), dtype)
    for i in range(n):
        x, y, z = block(i)
        peak = peaks[i % len(peaks)]
        maps[x, y.start : y.stop + 1, z, i] = peak * faint
        maps[x, y, z, i] = peak
    return nib.Nifti1Image(maps, AFFINE, dtype=dtype)


def save(img, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(img, path)


def write(text, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def fetch(name, folder, *args, **settings):
    """Run ``nilearn.datasets.fetch_atlas_<name>`` on the files in a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about rows without voxels, and its future
        return getattr(datasets, f"fetch_atlas_{name}")(*args, data_dir=folder, verbose=0, **settings)


def aal(folder, names, indices, values):
    rows = "".join(f"<label><index>{i}</index><name>{n}</name></label>" for i, n in zip(indices, names, strict=True))
    save(label_img(values), folder / "aal_SPM12/aal/atlas/AAL.nii")
    write(f"<atlas><data>{rows}</data></atlas>", folder / "aal_SPM12/aal/atlas/AAL.xml")
    return fetch("aal", folder, "SPM12")


def destrieux(folder, rows, values):
    table = "index,name\n" + "".join(f"{i},{n}\n" for i, n in rows)
    write(table, folder / "destrieux_2009/destrieux2009_rois_labels_lateralized.csv")
    write("Destrieux", folder / "destrieux_2009/destrieux2009.rst")
    save(label_img(values), folder / "destrieux_2009/destrieux2009_rois_lateralized.nii.gz")
    return fetch("destrieux_2009", folder)


def fsl(folder, source, kind, names, img, **settings):
    """Write the files of Harvard-Oxford or Juelich."""
    rows = "".join(f'<label index="{i}" x="0" y="0" z="0">{n}</label>' for i, n in enumerate(names))
    xml = {"sub": "HarvardOxford-Subcortical", "cort": "HarvardOxford-Cortical"}.get(kind.split("-")[0], "Juelich")
    write(f"<atlas><data>{rows}</data></atlas>", folder / f"fsl/data/atlases/{xml}.xml")
    save(img, folder / f"fsl/data/atlases/{source}/{source}-{kind}.nii.gz")
    return fetch({"HarvardOxford": "harvard_oxford", "Juelich": "juelich"}[source], folder, kind, **settings)


def talairach(folder, names, values):
    save(label_img(values), folder / "talairach_atlas/lobe.nii.gz")
    write(json.dumps(["Background", *names]), folder / "talairach_atlas/lobe-labels.json")
    return fetch("talairach", folder, "lobe")


def schaefer(folder, names, values):
    stem = "Schaefer2018_100Parcels_7Networks_order"
    write("".join(f"{i}\t{n}\t1\t2\t3\t0\n" for i, n in enumerate(names, 1)), folder / f"schaefer_2018/{stem}.txt")
    save(label_img(values), folder / f"schaefer_2018/{stem}_FSLMNI152_1mm.nii.gz")
    return fetch("schaefer_2018", folder, 100)


def yeo(folder, n_networks=7):
    yeo = folder / "yeo_2011/Yeo_JNeurophysiol11_MNI152"
    for n in (7, 17):
        rows = "  0 NONE 0 0 0 0\n" + "".join(f"  {i} {n}Networks_{i} {i} 2 3 0\n" for i in range(1, n + 1))
        write(rows, yeo / f"Yeo2011_{n}Networks_ColorLUT.txt")
        for mask in ("", "_LiberalMask"):
            labels = np.asarray(label_img(range(1, n + 1)).dataobj)[..., None]
            img = nib.Nifti1Image(labels, AFFINE)
            save(img, yeo / f"Yeo2011_{n}Networks_MNI152_FreeSurferConformed1mm{mask}.nii.gz")
    save(label_img([1]), yeo / "FSL_MNI152_FreeSurferConformed_1mm.nii.gz")
    return fetch("yeo_2011", folder, n_networks=n_networks)


def basc(folder):
    stem = "template_cambridge_basc_multiscale"
    save(label_img(range(1, 8)), folder / f"basc_multiscale_2015/{stem}_nii_sym/{stem}_sym_scale007.nii.gz")
    return fetch("basc_multiscale_2015", folder, resolution=7)


def pauli(folder, names, img, kind):
    save(img, folder / f"pauli_2017/pauli_2017_{kind[:4].rstrip('e')}.nii.gz")
    write("".join(f"{i} {n}\n" for i, n in enumerate(names)), folder / "pauli_2017/labels.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return datasets.fetch_atlas_pauli_2017(kind, data_dir=folder, verbose=0)


def difumo(folder, names, img):
    table = pd.DataFrame({"Component": range(1, len(names) + 1), "Difumo_names": names, "GM": 0.5})
    write(table.to_csv(index=False), folder / "difumo_atlases/64/labels_64_dictionary.csv")
    save(img, folder / "difumo_atlases/64/2mm/maps.nii.gz")
    write("DiFuMo", folder / "difumo_atlases/README.md")
    return fetch("difumo", folder, 64)


def msdl(folder, names, img):
    table = pd.DataFrame({"x": 1, "y": 2, "z": 3, "name": [f"{n}\t" for n in names], "net name": "a network"})
    write(table.to_csv(index=False), folder / "msdl_atlas/MSDL_rois/msdl_rois_labels.csv")
    save(img, folder / "msdl_atlas/MSDL_rois/msdl_rois.nii")
    return fetch("msdl", folder)


def smith(folder, img):
    save(img, folder / "smith_2009/PNAS_Smith09_rsn10.nii.gz")
    return fetch("smith_2009", folder)


def craddock(folder, img):
    save(img, folder / "craddock_2012/scorr05_mean_all.nii.gz")
    return fetch("craddock_2012", folder)


def allen(folder, img, rsn28):
    for name, each in (("ALL_HC_unthresholded_tmaps", img), ("RSN_HC_unthresholded_tmaps", rsn28)):
        save(each, folder / f"allen_rsn_2011/allen_rsn_2011/{name}.nii.gz")
    save(img, folder / "allen_rsn_2011/allen_rsn_2011/rest_hcp_agg__component_ica_.nii.gz")
    return fetch("allen_2011", folder)
