"""Time a training step's parts on one CPU core: crops of noise, so that no data is needed.

python profile_step.py [ROWS]
"""

import sys
import time

import sound
import student
import torch

SAMPLES = 32000


def timed(name, function, count=5):
    """Print a function's CPU time as a table row; return its last result."""
    function()
    begun = time.process_time()
    for _ in range(count):
        result = function()
    print(f"| {name} | {(time.process_time() - begun) / count * 1000:.0f} |")
    return result


def step_of(encoder, inputs, half):
    """Return a function that computes loss and gradients of one batch."""
    head = student.Head(2 * encoder.config.hidden_size, 2063)
    label = torch.randint(0, 2063, (len(inputs),))
    said = torch.randn(len(inputs), 256)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            hidden = student.states(encoder, inputs)
        speaker, distance, _ = head(student.pooled(hidden[-1]), label, said, 0.1)
        (speaker + distance).backward()

    return step


def main(rows):
    """Print the table's rows."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    waves = 0.1 * torch.randn(rows, SAMPLES, generator=generator)
    bank = sound.SceneBank(SAMPLES, 64, generator)
    device = torch.device("cpu")

    def at_once():
        scene = sound.draw_scenes(rows, device, generator)
        return sound.augment(waves, scene, generator)

    with torch.no_grad():
        timed("scenes drawn and applied anew", at_once)
        timed("scenes of the bank", lambda: bank.augment(waves, generator))
        mels = timed("log-mel", lambda: sound.LogMel(4, device)(waves))
    for name, make, inputs in (
        ("filters (waveform)", student.make_wave_encoder, waves),
        ("log-mel (w2v-BERT)", student.make_encoder, mels),
    ):
        for half in (False, True):
            encoder = make().train()
            number = "bfloat16" if half else "float32"
            timed(f"{name}, loss and gradients, {number}", step_of(encoder, inputs, half))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 32)
