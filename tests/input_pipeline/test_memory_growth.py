import itertools

import numpy as np

from input_pipeline import memory, pipeline, records

WINDOWS = {"split": "train", "clip_frames": 6, "input_frames": 14, "image_size": 32, "max_tubes": 3}


def test_records_several_times(records_dir, tmp_path):
    """Every record comes that many times in an epoch, with the same pixels and tubes."""
    memory.repeat_records(records_dir, "train", tmp_path / "three", times=3)
    once, thrice = (records.load_index(path, "train") for path in (records_dir, tmp_path / "three"))
    assert memory.index_bytes(thrice) == 3 * memory.index_bytes(once)
    options = {**WINDOWS, "batch_size": 4, "stride": 2, "num_threads": 1}
    starts = [
        [
            int(start)
            for batch in pipeline.eval_batches(path, **options)
            for start in batch["start"][batch["example_mask"]]
        ]
        for path in (records_dir, tmp_path / "three")
    ]
    assert sorted(starts[1]) == sorted(3 * starts[0])
    training = pipeline.train_batches(
        tmp_path / "three", **{**WINDOWS, "batch_size": 12, "seed": 0, "num_threads": 1}
    )
    sums = [clip.sum() for batch in itertools.islice(training, 3) for clip in batch["clips"]]
    assert len(np.unique(sums)) > 1
