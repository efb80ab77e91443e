"""Frames to a file: an mp4 that is encoded while the next frames are drawn, or numbered PNG files.

The encoder is ffmpeg, as the optional package imageio-ffmpeg brings it. Must not know where frames come from, nor import torch.
"""

import contextlib
import importlib.util
import os
import re
import subprocess
import tempfile

import numpy as np

from dnnlib.errors import UserError

PACKAGE = "imageio-ffmpeg"
SMALLEST_SIDE = 256
# Nearly lossless for the eye; a faster preset than the usual one, so that drawing and not encoding sets the pace.
_QUALITY = ["-crf", "14", "-preset", "veryfast"]


def missing_packages():
    """Names of the optional packages that an mp4 needs and that are not installed."""
    return [] if importlib.util.find_spec("imageio_ffmpeg") is not None else [PACKAGE]


def _encoder():
    import imageio_ffmpeg  # Optional; see missing_packages.

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise UserError(
            f"{PACKAGE} is installed, but finds no ffmpeg program ({str(error).splitlines()[0]}); install it again with "
            f"pip install --force-reinstall {PACKAGE}, or go without the video"
        ) from error


class Mp4:
    """An H.264 video of frames uint8 [H, W, C] of one size. The file appears when `finish` has been called."""

    def __init__(self, path, frames_per_sec):
        self.path, self.frames_per_sec = path, frames_per_sec
        # The encoder wants a file of its own with the right ending; the finished video is renamed.
        self._partial = f"{os.path.splitext(path)[0]}.partial.mp4"
        self._program = _encoder()
        self._process, self._shape, self._errors = None, None, None

    def add(self, frame):
        """Hand one frame to the encoder, which works in a process of its own."""
        frame = _with_even_sides(_in_colour(frame))
        if self._process is None:
            self._start(frame.shape)
        if frame.shape != self._shape:
            raise ValueError(f"a video has frames of one size (got {frame.shape} after {self._shape})")
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            raise self._failure() from error

    def _start(self, shape):
        self._shape = shape
        self._errors = tempfile.TemporaryFile()  # a pipe that nobody reads would stop the encoder when it is full
        command = [self._program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{shape[1]}x{shape[0]}"]
        command += ["-r", str(self.frames_per_sec), "-i", "-", "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", *_QUALITY, self._partial]
        # In a session of its own, so that Ctrl-C ends the drawing and not the encoder under it.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors, start_new_session=True)

    def finish(self):
        """Wait for the encoder and give the file its name."""
        try:
            self._process.stdin.close()
        except OSError as error:
            raise self._failure() from error
        if self._process.wait() != 0:
            raise self._failure()
        os.replace(self._partial, self.path)

    def _failure(self):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"it ended with code {code}"
        return UserError(f"Cannot write {self.path}: the encoder failed ({reason}); check the space on that disk, or ask for PNG files with --frames")

    def discard(self):
        """End the encoder and remove what is not finished."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if self._errors is not None:
            self._errors.close()
        if os.path.exists(self._partial):
            os.unlink(self._partial)


@contextlib.contextmanager
def open_mp4(path, frames_per_sec):
    """An Mp4 that is finished at the end of the block; after an error (or Ctrl-C) nothing is left of it."""
    video = Mp4(path, frames_per_sec)
    try:
        yield video
        video.finish()
    finally:
        video.discard()


class NumberedPngs:
    """frame00000.png, frame00001.png, ... in a folder."""

    def __init__(self, folder, save_png):
        self.folder, self.num_frames, self._save_png = folder, 0, save_png

    def add(self, frame):
        """Write the next file."""
        self._save_png(frame, os.path.join(self.folder, png_name(self.num_frames)))
        self.num_frames += 1


def png_name(index):
    """frame00012.png."""
    return f"frame{index:05d}.png"


def check_no_longer_video(folder, num_frames):
    """Refuse a folder with frames of a longer video: whoever joins the files would join two videos."""
    numbers = [int(match[1]) for match in (re.fullmatch(r"frame(\d{5,})\.png", name) for name in os.listdir(folder)) if match]
    if numbers and max(numbers) >= num_frames:
        raise UserError(
            f"--outdir={folder} holds frames of a longer video (up to {png_name(max(numbers))}, and this one has {num_frames}); "
            "choose another folder, or remove them"
        )


def enlargement(resolution):
    """How often each pixel of a small picture is repeated along both sides: H.264 stores one colour for 2x2 pixels, and players blur what is tiny."""
    return max(SMALLEST_SIDE // resolution, 1)


def enlarged(frame, times):
    """uint8 [H * times, W * times, C]."""
    return frame.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else frame


def _in_colour(frame):
    return np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame


def _with_even_sides(frame):
    """H.264 in its usual form stores colours for 2x2 pixels: an odd side gets its last line twice."""
    height, width = frame.shape[:2]
    return np.pad(frame, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge") if height % 2 or width % 2 else frame
