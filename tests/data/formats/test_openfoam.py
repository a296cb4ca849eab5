"""A case of OpenFOAM, laid out as blockMesh and its solvers write it in ASCII."""

import gzip
import re
import shutil

import numpy as np
import pytest
from foam_cases import HEAD, centres, listed, mesh, write

from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

NX, NY = 3, 2
CENTRES = centres(NX, NY)


def velocity(t):
    return np.column_stack([CENTRES[:, 0] * t, CENTRES[:, 1] + t, 0 * CENTRES[:, 0]])


@pytest.fixture
def case(tmp_path):
    folder = tmp_path / "cavity"
    mesh(folder, NX, NY)
    for name, t in (("0", 0.0), ("0.5", 0.5), ("10", 10.0)):
        rows = [f"({u} {v} {w})" for u, v, w in velocity(t).tolist()]
        write(folder / name / "U", "volVectorField", "dimensions [0 1 -1 0 0 0 0];\n\ninternalField   nonuniform "
              f"List<vector> \n{listed(rows)};\n\nboundaryField\n{{\n}}\n")
        body = "uniform 0" if name == "0" else f"nonuniform List<scalar> \n{listed([str(t + k) for k in range(6)])}"
        write(folder / name / "p", "volScalarField", f"internalField   {body};\n")
        write(folder / name / "phi", "surfaceScalarField", "internalField uniform 1;\n")
    return folder


def test_fields_of_cells_become_a_trajectory_at_their_centres(case, tmp_path):
    convert(case, tmp_path / "out.h5")
    with TrajectoryFile(tmp_path / "out.h5") as file:
        frames, about = file.read(0), file.description
    assert about.channels == ("U_x", "U_y", "p") and about.coordinates == ("x", "y")
    assert frames.t.tolist() == [0, 0.5, 10] and np.allclose(frames.x, CENTRES)
    for k, t in enumerate(frames.t):
        assert np.allclose(frames.u[k, :, :2], velocity(t)[:, :2])
    assert frames.u[0, :, 2].tolist() == [0] * 6 and frames.u[2, :, 2].tolist() == [10 + k for k in range(6)]
    assert ("times", "3, 0 to 10") in describe(case)


def test_lists_of_one_value_and_the_file_of_paraview_are_read(case, tmp_path):
    write(case / "10" / "p", "volScalarField", "boundaryField\n{\n}\ninternalField nonuniform List<scalar> 6{2.5};\n")
    write(case / "0" / "p", "volScalarField", "internalField nonuniform 6(1 2 3 4 5 6);\n")
    (case / "cavity.foam").touch()
    convert(case / "cavity.foam", tmp_path / "out.h5")
    with TrajectoryFile(tmp_path / "out.h5") as file:
        p = file.read(0).u[..., 2]
    assert p[2].tolist() == [2.5] * 6 and p[0].tolist() == [1, 2, 3, 4, 5, 6]


def binary(path, kind):
    """A file of the case in OpenFOAM's binary format: lists as bytes, faces as the first corner of each and all."""
    head, _, body = path.read_text().partition("// * * * * * //")
    head = head.replace("format      ascii;", 'format      binary;\n    arch        "LSB;label=32;scalar=64";')
    if kind == "faces":
        faces = [face.split() for face in re.findall(r"4\(([^)]*)\)", body)]
        lists = [np.cumsum([0, *map(len, faces)]), np.concatenate(faces)]
        head, body = head.replace("faceList", "faceCompactList"), "\n".join(f"{len(one)}\n({{}})" for one in lists)
    else:
        found = re.search(r"\d+\n\((.*)\n\)\n", body, re.DOTALL)
        if found is None:  # a uniform field
            return
        lists = [np.array(found[1].replace("(", " ").replace(")", " ").split())]
        count = found[0].split()[0]
        body = body.replace(found[0], f"{count}\n({{}})\n").replace("{\n}", "{{\n}}")
    packed = [np.asarray(one, "<i4" if kind in ("faces", "cells") else "<f8").tobytes() for one in lists]
    parts = body.replace("{{", "{").replace("}}", "}").split("{}")
    whole = b"".join(part.encode() + data for part, data in zip(parts, [*packed, b""], strict=True))
    path.write_bytes(head.encode() + b"// * //\n" + whole)


def test_binary_cases_hold_the_same(case, tmp_path):
    convert(case, tmp_path / "ascii.h5")
    place = case / "constant" / "polyMesh"
    for name, kind in {"points": "points", "faces": "faces", "owner": "cells", "neighbour": "cells"}.items():
        binary(place / name, kind)
    for folder in ("0", "0.5", "10"):
        binary(case / folder / "U", "vector")
        binary(case / folder / "p", "scalar")
    convert(case, tmp_path / "binary.h5")
    with TrajectoryFile(tmp_path / "ascii.h5") as one, TrajectoryFile(tmp_path / "binary.h5") as other:
        assert np.array_equal(one.read(0).x, other.read(0).x) and np.array_equal(one.read(0).u, other.read(0).u)


def test_the_parts_of_a_decomposed_case_are_one_trajectory(case, tmp_path):
    for number in range(2):  # two cases in place of two parts: their cells come one after the other
        shutil.copytree(case, tmp_path / "split" / f"processor{number}")
    convert(tmp_path / "split", tmp_path / "out.h5")
    with TrajectoryFile(tmp_path / "out.h5") as file:
        frames = file.read(0)
    assert frames.u.shape == (3, 12, 3) and np.array_equal(frames.u[:, :6], frames.u[:, 6:])
    assert ("times", "3, 0 to 10, in 2 parts") in describe(tmp_path / "split")


def test_a_region_of_a_case_is_read_by_its_folder_in_constant(case, tmp_path):
    for part in ("several", "split/processor0", "split/processor1"):
        for region in ("fluid", "solid"):
            shutil.copytree(case / "constant", tmp_path / part / "constant" / region)
            for time in ("0", "0.5", "10") if region == "fluid" else ("0",):
                shutil.copytree(case / time, tmp_path / part / time / region)
    (tmp_path / "split" / "constant" / "fluid").mkdir(parents=True)
    convert(case, tmp_path / "one.h5")
    convert(tmp_path / "several" / "constant" / "fluid", tmp_path / "region.h5")
    convert(tmp_path / "split" / "constant" / "fluid", tmp_path / "parts.h5")
    frames = []
    for name in ("one", "region", "parts"):
        with TrajectoryFile(tmp_path / f"{name}.h5") as file:
            frames.append(file.read(0))
    assert np.array_equal(frames[0].u, frames[1].u) and np.array_equal(frames[0].x, frames[1].x)
    assert np.array_equal(frames[0].u, frames[2].u[:, :6]) and frames[2].u.shape == (3, 12, 3)
    for path in (tmp_path / "several", tmp_path / "split"):
        with pytest.raises(UserError, match="regions fluid, solid; give the folder of one, as .*constant/fluid"):
            describe(path)


def test_compressed_files_are_read_and_what_is_not_is_said(case, tmp_path):
    packed = case / "10" / "p"
    (case / "10" / "p.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    convert(case, tmp_path / "out.h5", channels=["p"])
    (case / "10" / "U").write_text((case / "10" / "U").read_text().replace("ascii", "binary"))
    with pytest.raises(UserError, match="does not hold the 18 numbers"):
        convert(case, tmp_path / "out2.h5")
    (case / "10" / "U").write_text(HEAD.format(kind="volVectorField", name="U") + "internalField nonuniform "
                                   "List<vector> 1\n(\n(1 2 3)\n)\n;")
    with pytest.raises(UserError, match="1 values for 6 cells"):
        convert(case, tmp_path / "out2.h5")
    (case / "0.5" / "p").unlink()
    (case / "0.5" / "p").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match=r"no field p|link to another folder"):
        convert(case, tmp_path / "out2.h5", channels=["p"])


def test_fields_that_some_times_lack_are_named_and_taken_from_their_first_time_on(case, tmp_path):
    write(case / "0.5" / "R", "volSymmTensorField", "internalField uniform (1 2 3 4 5 6);\n")
    for name in ("0.5", "10"):
        write(case / name / "T", "volScalarField", "dimensions [0 0 0 1 0 0 0];\ninternalField uniform 300;\n")
    with pytest.warns(UserWarning) as told:
        convert(case, tmp_path / "out.h5")
    said = " ".join(str(one.message) for one in told)
    assert "T (not at time 0)" in said and "tensors are left out: R" in said and "U (" not in said
    convert(case, tmp_path / "later.h5", channels=["T", "U_x"])
    with TrajectoryFile(tmp_path / "later.h5") as file:
        assert file.read(0).t.tolist() == [0.5, 10] and file.description.units == ("K", "m s-1")
    (case / "10" / "T").unlink()
    with pytest.raises(UserError, match="no field T at time 10; remove"):
        convert(case, tmp_path / "out2.h5", channels=["T"])


def test_meshes_that_move_and_values_that_openfoam_computes_are_refused(case, tmp_path):
    shutil.copytree(case / "constant" / "polyMesh", case / "10" / "polyMesh")
    with pytest.raises(UserError, match="the mesh moves"):
        convert(case, tmp_path / "out.h5")
    shutil.rmtree(case / "10" / "polyMesh")
    for value in ("uniform $pressure;", '#calc "1 + 1";'):
        write(case / "0" / "p", "volScalarField", f"pressure 1;\ninternalField {value}\n")
        with pytest.raises(UserError, match="0/p has an internalField that OpenFOAM computes"):
            convert(case, tmp_path / "out.h5")
