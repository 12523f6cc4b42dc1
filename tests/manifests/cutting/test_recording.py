"""Encoded audio in memory is let go, also where it is not written."""

import numpy as np
import pytest

from spk.common.errors import InputError
from spk.common.outputs import protecting
from spk.manifests.cutting.recording import write_audio


def test_a_refused_write_leaves_no_view_of_the_encoded_audio(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, np.zeros(160, np.int16))
    with protecting([path]), pytest.raises(InputError, match="other content") as problem:
        write_audio(path, np.ones(160, np.int16))
    (frame,) = [entry.frame for entry in problem.traceback if entry.name == "write_audio"]
    frame.f_locals["image"].close()  # raises BufferError while there is one
