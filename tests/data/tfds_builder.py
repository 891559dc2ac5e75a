"""A TensorFlow Datasets set made of own text, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from albert_jax.data.sources import sources
from albert_jax.errors import DataError


def write(specs: Sequence[str], directory: str, options: Any = None) -> str:
    """Makes a TFDS set (text, id) of other sources and returns its folder, for `tfds:FOLDER`.

    Raises:
      DataError: bad text, or a directory that holds such a set already.
    """
    import tensorflow_datasets as tfds

    # Unregistered, or the library would refuse a second set in one process.
    class PlainText(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos: ClassVar[dict[str, Any]] = {}  # else looked for beside the class's file

        @classmethod
        def get_metadata(cls) -> Any:
            return tfds.core.dataset_metadata.DatasetMetadata(  # pyright: ignore[reportAttributeAccessIssue]
                description="Text files as documents.", citation="", tags=[]
            )

        def _info(self) -> Any:
            text = tfds.features.Text()
            features = tfds.features.FeaturesDict({"text": text, "id": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager: Any) -> Any:
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[str, dict[str, str]]]:
            for number, document in enumerate(sources.documents(specs, options)):
                yield str(number), {"text": document.text, "id": document.id}

    builder = PlainText(data_dir=directory, file_format="array_record")
    if builder.is_prepared():
        raise DataError(f"{builder.data_path}: holds a set already: delete it or name another")
    builder.download_and_prepare()
    return str(builder.data_path)
