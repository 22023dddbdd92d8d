"""Files of noise, and of formats that libsndfile cannot write, made with PyAV."""

from fractions import Fraction

import av
import numpy as np
import soundfile

# Extension to container, codec and whether the codec keeps every sample.
FORMATS = {
    ".m4a": ("ipod", "aac"),
    ".m4b": ("ipod", "alac"),
    ".aac": ("adts", "aac"),
    ".wma": ("asf", "wmav2"),
    ".webm": ("webm", "libopus"),
    ".mka": ("matroska", "aac"),
    ".mp2": ("mp2", "mp2"),
    ".ac3": ("ac3", "ac3"),
    ".wv": ("wv", "wavpack"),
    ".tta": ("tta", "tta"),
}


def encode(path, wav, rate, container, codec, fast_start=False, bit_rate=128000):
    """Writes (samples, channels) to a file; times say where the music begins."""
    layout = {1: "mono", 2: "stereo"}[wav.shape[1]]
    moved = {"movflags": "faststart"} if fast_start else {}
    with av.open(str(path), "w", format=container, options=moved) as file:
        # Without noise substitution, which draws other noise at every decoding.
        options = {"aac_pns": "0"} if codec == "aac" else {}
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.codec_context.layout = layout
        if codec not in ("alac", "wavpack", "tta"):
            stream.codec_context.bit_rate = bit_rate
        stream.codec_context.open()
        values = np.ascontiguousarray(wav.T, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(values, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(
            format=stream.codec_context.format,
            layout=layout,
            rate=rate,
            frame_size=stream.codec_context.frame_size or 4096,
        )
        done = 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            piece.pts, piece.time_base = done, Fraction(1, rate)
            done += piece.samples
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return path


def write_noise(path, seconds=1.0, rate=24000, channels=1, level=0.1, seed=0, **kinds):
    """A file of noise between -level and level; other seeds are other noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (round(seconds * rate), channels)
    wav = np.random.default_rng(seed).uniform(-level, level, size)
    soundfile.write(path, wav, rate, **kinds)
    return path


def noise_manifest(folder, seconds, rates=(24000,), **kinds):
    """The manifest of a file of noise for each duration, and the files."""
    manifest = {}
    for number, duration in enumerate(seconds):
        rate = rates[number % len(rates)]
        path = folder / f"{number}.wav"
        write_noise(path, duration, rate, seed=number, **kinds)
        manifest[f"clip{number}"] = {"wav": str(path), "duration": float(duration)}
    return manifest
