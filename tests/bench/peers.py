"""Other ways to keep and read the same rows, each as its own documentation does it best.

A peer writes rows below a folder, and opens a reader for one thread that fills buffers with chosen rows. A
library that is not installed raises ImportError when its peer is made.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tests.bench.store_data import Features

Out = Mapping[str, np.ndarray]
Read = Callable[[np.ndarray, Out], None]


class Peer:
    """`needs`: the modules that it imports. `own_files`: False if it reads the files of our store."""

    name = ""
    needs: tuple[str, ...] = ()
    own_files = True

    def __init__(self, features: Features) -> None:
        self.features = features
        self.names = [spec.name for spec in features.signals]
        self.modules = {module: importlib.import_module(module) for module in self.needs}

    def write(self, folder: Path) -> None:
        raise NotImplementedError

    def open(self, folder: Path) -> Read:
        """A function that copies rows [B] into `out`, for one thread."""
        raise NotImplementedError


class Memmap(Peer):
    """One .npy a signal, np.take over the memory map."""

    name = "np.take on a memmap"

    def write(self, folder: Path) -> None:
        for spec in self.features.signals:
            shape = (self.features.rows, *self.features.shape(spec))
            path = folder / f"{self.names.index(spec.name)}.npy"
            whole = np.lib.format.open_memmap(path, "w+", np.float16, shape)
            for row in range(self.features.rows):
                whole[row] = self.features.row(spec, row)
            whole.flush()

    def open(self, folder: Path) -> Read:
        whole = [np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(len(self.names))]

        def read(rows: np.ndarray, out: Out) -> None:
            for name, array in zip(self.names, whole, strict=True):
                np.take(array, rows, axis=0, out=out[name], mode="clip")

        return read


class Safetensors(Peer):
    """One file a video, opened by memory map."""

    name = "safetensors, one file a video"
    needs = ("safetensors.numpy", "safetensors")

    def write(self, folder: Path) -> None:
        for row, sample in enumerate(self.features.samples()):
            content = {name: np.ascontiguousarray(values) for name, values in sample.items()}
            self.modules["safetensors.numpy"].save_file(content, folder / f"{row}.safetensors")

    def open(self, folder: Path) -> Read:
        safe_open = self.modules["safetensors"].safe_open

        def read(rows: np.ndarray, out: Out) -> None:
            for place, row in enumerate(rows.tolist()):
                with safe_open(folder / f"{row}.safetensors", framework="np") as file:
                    for name in self.names:
                        out[name][place] = file.get_tensor(name)

        return read


class H5pyDirect(Peer):
    """One chunk a row, read by `read_direct_chunk` into the buffer, past HDF5's filters."""

    name = "h5py, read_direct_chunk"
    needs = ("h5py",)

    def write(self, folder: Path) -> None:
        with self.modules["h5py"].File(folder / "rows.h5", "w") as file:
            for spec in self.features.signals:
                shape = self.features.shape(spec)
                rows = self.features.rows
                dataset = file.create_dataset(spec.name, (rows, *shape), "f2", chunks=(1, *shape))
                for row in range(rows):
                    dataset[row] = self.features.row(spec, row)

    def open(self, folder: Path) -> Read:
        file = self.modules["h5py"].File(folder / "rows.h5", "r")

        def read(rows: np.ndarray, out: Out) -> None:
            for name in self.names:
                chunks, buffer = file[name].id, out[name]
                zeros = (0,) * (buffer.ndim - 1)
                for place, row in enumerate(rows.tolist()):
                    chunks.read_direct_chunk((row, *zeros), out=buffer[place].reshape(-1).view(np.uint8))

        return read


class Tensorstore(Peer):
    """Our own Zarr, memory-mapped, written straight into the buffer; it spreads one read over its threads."""

    name = "tensorstore, our Zarr"
    needs = ("tensorstore",)
    own_files = False

    def open(self, folder: Path) -> Read:
        ts = self.modules["tensorstore"]
        context = ts.Context({"file_io_mode": {"mode": "memmap"}})
        stores = {
            name: ts.open(
                {"driver": "zarr3", "kvstore": f"file://{folder}/teacher/{name}/"},
                context=context,
                read=True,
                open=True,
            ).result()
            for name in self.names
        }

        def read(rows: np.ndarray, out: Out) -> None:
            waiting = [
                ts.array(out[name], copy=False, write=True).write(stores[name][rows]) for name in self.names
            ]
            for future in waiting:
                future.result()

        return read


class ZarrPython(Peer):
    """Our own Zarr by zarr-python, a row a call, decoded into the buffer."""

    name = "zarr-python, our Zarr"
    needs = ("zarr", "zarr.core.buffer")
    own_files = False
    pipeline = "zarr.core.codec_pipeline.BatchedCodecPipeline"

    def open(self, folder: Path) -> Read:
        zarr = self.modules["zarr"]
        with zarr.config.set({"codec_pipeline.path": self.pipeline}):
            arrays = {name: zarr.open_array(folder / "teacher" / name, mode="r") for name in self.names}
        as_buffer = self.modules["zarr.core.buffer"].default_buffer_prototype().nd_buffer.from_numpy_array

        def read(rows: np.ndarray, out: Out) -> None:
            for name, array in arrays.items():
                for place, row in enumerate(rows.tolist()):
                    target = as_buffer(out[name][place : place + 1])
                    array.get_basic_selection(slice(row, row + 1), out=target)

        return read


class Zarrs(ZarrPython):
    """The same through the Rust pipeline of zarrs."""

    name = "zarrs pipeline, our Zarr"
    needs = (*ZarrPython.needs, "zarrs")
    pipeline = "zarrs.ZarrsCodecPipeline"


class TorchMapped(Peer):
    """One .pt of stacked tensors, torch.load(mmap=True), index_select into the buffer."""

    name = "torch .pt, memory-mapped"
    needs = ("torch",)

    def write(self, folder: Path) -> None:
        torch = self.modules["torch"]
        for number, spec in enumerate(self.features.signals):
            whole = np.stack([self.features.row(spec, row) for row in range(self.features.rows)])
            torch.save(torch.from_numpy(whole), folder / f"{number}.pt")

    def open(self, folder: Path) -> Read:
        torch = self.modules["torch"]
        tensors = [
            torch.load(folder / f"{number}.pt", mmap=True, weights_only=True)
            for number in range(len(self.names))
        ]

        def read(rows: np.ndarray, out: Out) -> None:
            index = torch.from_numpy(rows)
            for name, tensor in zip(self.names, tensors, strict=True):
                torch.index_select(tensor, 0, index, out=torch.from_numpy(out[name]))

        return read


class Litdata(Peer):
    """Chunks written by its own binary writer, random access through StreamingDataset."""

    name = "litdata"
    needs = ("litdata", "litdata.streaming.writer")

    def write(self, folder: Path) -> None:
        writer = self.modules["litdata.streaming.writer"].BinaryWriter(str(folder), chunk_bytes="64MB")
        for row, sample in enumerate(self.features.samples()):
            writer[row] = {name.replace("/", "_"): np.ascontiguousarray(a) for name, a in sample.items()}
        writer.done()
        writer.merge()

    def open(self, folder: Path) -> Read:
        dataset = self.modules["litdata"].StreamingDataset(str(folder))
        keys = {name: name.replace("/", "_") for name in self.names}

        def read(rows: np.ndarray, out: Out) -> None:
            for place, row in enumerate(rows.tolist()):
                sample = dataset[row]
                for name, key in keys.items():
                    out[name][place] = sample[key]

        return read


class MosaicStreaming(Peer):
    """MDS shards, uncompressed, random access through LocalDataset."""

    name = "MosaicML Streaming"
    needs = ("streaming",)

    def _columns(self) -> dict[str, str]:
        features = self.features
        return {
            spec.name: f"ndarray:float16:{','.join(map(str, features.shape(spec)))}"
            for spec in features.signals
        }

    def write(self, folder: Path) -> None:
        streaming = self.modules["streaming"]
        with streaming.MDSWriter(out=str(folder), columns=self._columns(), size_limit="64mb") as writer:
            for sample in self.features.samples():
                writer.write({name: np.ascontiguousarray(values) for name, values in sample.items()})

    def open(self, folder: Path) -> Read:
        dataset = self.modules["streaming"].LocalDataset(str(folder))

        def read(rows: np.ndarray, out: Out) -> None:
            for place, row in enumerate(rows.tolist()):
                sample = dataset[row]
                for name in self.names:
                    out[name][place] = sample[name]

        return read


class Webdataset(Peer):
    """A tar file as it writes it; random access at the members' offsets, its own reading is in order."""

    name = "webdataset (tar, indexed)"
    needs = ("webdataset",)

    def write(self, folder: Path) -> None:
        with self.modules["webdataset"].TarWriter(str(folder / "rows.tar")) as sink:
            for row, sample in enumerate(self.features.samples()):
                parts = {f"{number}.npy": sample[name] for number, name in enumerate(self.names)}
                sink.write({"__key__": f"{row:08d}", **parts})
        with tarfile.open(folder / "rows.tar") as tar:
            index = {member.name: (member.offset_data, member.size) for member in tar}
        (folder / "index.json").write_text(json.dumps(index))

    def open(self, folder: Path) -> Read:
        index = json.loads((folder / "index.json").read_text())
        file = open(folder / "rows.tar", "rb", buffering=0)  # noqa: SIM115 - open as long as its reader

        def read(rows: np.ndarray, out: Out) -> None:
            for place, row in enumerate(rows.tolist()):
                for number, name in enumerate(self.names):
                    offset, size = index[f"{row:08d}.{number}.npy"]
                    out[name][place] = np.load(io.BytesIO(os.pread(file.fileno(), size, offset)))

        return read


class Lance(Peer):
    """A column of fixed-size binary a signal, `take` by row number."""

    name = "lance"
    needs = ("lance", "pyarrow")

    def write(self, folder: Path) -> None:
        pa = self.modules["pyarrow"]
        sizes = [2 * int(np.prod(self.features.shape(spec))) for spec in self.features.signals]
        schema = pa.schema(
            [(name.replace("/", "_"), pa.binary(size)) for name, size in zip(self.names, sizes, strict=True)]
        )

        def batches() -> Any:
            for sample in self.features.samples():
                columns = [
                    pa.array([values.tobytes()], kind.type)
                    for values, kind in zip(sample.values(), schema, strict=True)
                ]
                yield pa.record_batch(columns, schema=schema)

        self.modules["lance"].write_dataset(
            pa.RecordBatchReader.from_batches(schema, batches()), str(folder / "rows.lance")
        )

    def open(self, folder: Path) -> Read:
        dataset = self.modules["lance"].dataset(str(folder / "rows.lance"))

        def read(rows: np.ndarray, out: Out) -> None:
            table = dataset.take(rows.tolist())
            for name in self.names:
                place = 0
                for chunk in table[name.replace("/", "_")].chunks:
                    content = np.frombuffer(chunk.buffers()[1], np.float16)
                    first = chunk.offset * out[name][0].size
                    part = content[first : first + len(chunk) * out[name][0].size]
                    out[name][place : place + len(chunk)] = part.reshape(-1, *out[name].shape[1:])
                    place += len(chunk)

        return read


class Compressed(Peer):
    """Rows compressed one by one, one file a signal, read at their offset, decompressed into the buffer."""

    needs = ("numcodecs",)
    codec: ClassVar[Mapping[str, Any]] = {}

    def write(self, folder: Path) -> None:
        codec = self.modules["numcodecs"].get_codec(dict(self.codec))
        for number, spec in enumerate(self.features.signals):
            sizes = []
            with open(folder / str(number), "wb") as file:
                for row in range(self.features.rows):
                    content = codec.encode(np.ascontiguousarray(self.features.row(spec, row)))
                    sizes.append(file.write(content))
            np.save(folder / f"{number}.npy", np.cumsum([0, *sizes]))

    def open(self, folder: Path) -> Read:
        codec = self.modules["numcodecs"].get_codec(dict(self.codec))
        bounds = [np.load(folder / f"{number}.npy").tolist() for number in range(len(self.names))]
        files = [os.open(folder / str(number), os.O_RDONLY) for number in range(len(self.names))]

        def read(rows: np.ndarray, out: Out) -> None:
            for name, bound, file in zip(self.names, bounds, files, strict=True):
                for place, row in enumerate(rows.tolist()):
                    content = os.pread(file, bound[row + 1] - bound[row], bound[row])
                    codec.decode(content, out=out[name][place])

        return read


class Blosc(Compressed):
    name = "raw rows + blosc lz4 bitshuffle"
    codec: ClassVar[Mapping[str, Any]] = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 2}


class Zstd(Compressed):
    name = "raw rows + zstd 1"
    codec: ClassVar[Mapping[str, Any]] = {"id": "zstd", "level": 1}


PEERS: tuple[type[Peer], ...] = (
    Memmap,
    Safetensors,
    H5pyDirect,
    Tensorstore,
    ZarrPython,
    Zarrs,
    TorchMapped,
    Litdata,
    MosaicStreaming,
    Webdataset,
    Lance,
    Blosc,
    Zstd,
)
