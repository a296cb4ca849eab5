"""A case of OpenFOAM, laid out as blockMesh and its solvers write it in ASCII."""

import gzip
import itertools
import re
import shutil

import numpy as np
import pytest

from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

HEAD = """/*---*- C++ -*---*\\
| =========                 |
\\*---*/
FoamFile
{{
    version     2.0;
    format      ascii;
    class       {kind};
    object      {name};
}}
// * * * * * //

"""
NX, NY = 3, 2
CENTRES = np.array([[(i + 0.5) / NX, (j + 0.5) / NY] for j in range(NY) for i in range(NX)])  # x fastest


def listed(rows):
    return f"{len(rows)}\n(\n" + "\n".join(rows) + "\n)\n"


def write(path, kind, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD.format(kind=kind, name=path.name) + body + "\n// ***** //\n")


def mesh(case):
    """NX x NY cells in one layer: inner faces first, as OpenFOAM orders them."""
    corner = {key: n for n, key in enumerate(itertools.product(range(2), range(NY + 1), range(NX + 1)))}  # z, y, x
    points = [f"({x / NX} {y / NY} {0.1 * z})" for z, y, x in corner]
    inner, outer = [], []
    for j, i in itertools.product(range(NY), range(NX + 1)):  # faces across x
        face = [corner[z, y, i] for z, y in ((0, j), (0, j + 1), (1, j + 1), (1, j))]
        cells = [k * 1 + j * NX for k in (i - 1, i) if 0 <= k < NX]
        (inner if len(cells) == 2 else outer).append((face, cells))
    for j, i in itertools.product(range(NY + 1), range(NX)):  # across y
        face = [corner[z, j, x] for z, x in ((0, i), (0, i + 1), (1, i + 1), (1, i))]
        cells = [i + k * NX for k in (j - 1, j) if 0 <= k < NY]
        (inner if len(cells) == 2 else outer).append((face, cells))
    for z, j, i in itertools.product(range(2), range(NY), range(NX)):  # front and back
        outer.append(([corner[z, y, x] for y, x in ((j, i), (j, i + 1), (j + 1, i + 1), (j + 1, i))], [i + j * NX]))
    faces = [*inner, *outer]
    place = case / "constant" / "polyMesh"
    write(place / "points", "vectorField", listed(points))
    write(place / "faces", "faceList", listed([f"4({' '.join(map(str, face))})" for face, _ in faces]))
    write(place / "owner", "labelList", listed([str(cells[0]) for _, cells in faces]))
    write(place / "neighbour", "labelList", listed([str(cells[1]) for _, cells in inner]))


def velocity(t):
    return np.column_stack([CENTRES[:, 0] * t, CENTRES[:, 1] + t, 0 * CENTRES[:, 0]])


@pytest.fixture
def case(tmp_path):
    folder = tmp_path / "cavity"
    mesh(folder)
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
