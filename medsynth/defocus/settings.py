"""The chain's settings, as the spec and the device profiles write them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from medsynth.spec import Range, Settings

DEFAULT_RADII_PX = tuple(round(12 * (1.035**k - 1) / (1.035**29 - 1), 2) for k in range(30))
"""Assumed: 0 to 12 px in 30 classes, whose steps grow from 0.25 to 0.65 px."""


class BokehSettings(Settings):
    """The optics, and how their blur is reckoned."""

    kind: Literal["disc", "gaussian", "wave"] = "disc"
    na: float = Field(default=0.75, gt=0, le=1.5)
    """Numerical aperture: tells the defocus from the radius, and shapes the wave-optical kernel."""
    refractive_index: float = Field(default=1.0, ge=1, le=2)
    """Of the medium between the specimen and the lens."""
    wavelength_nm: float | tuple[float, float, float] = 550.0
    """Of the light, or of the red, green and blue light; only the wave-optical kernel depends on it."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.na >= self.refractive_index:
            raise ValueError(f"na {self.na:g} must lie below refractive_index {self.refractive_index:g}")
        if not all(100 <= wavelength <= 2000 for wavelength in self.wavelengths):
            raise ValueError("wavelength_nm must lie between 100 and 2000")
        return self

    @property
    def wavelengths(self) -> tuple[float, ...]:
        """One wavelength for all channels, or three."""
        return self.wavelength_nm if isinstance(self.wavelength_nm, tuple) else (self.wavelength_nm,)


class SensorSettings(Settings):
    """How many photons the sensor counts, and how well."""

    photons: Range = Range(low=200, high=20000, logarithmic=True)
    """Photo-electrons at full scale. Assumed: from a starved to a generous exposure."""
    read_noise_e: Range = Range(low=2, high=6)
    """Standard deviation of the read noise in electrons. Assumed: common CMOS sensors."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 0.1 <= self.photons.low <= self.photons.high <= 1e7:
            raise ValueError("photons must lie between 0.1 and 10 million")
        if not 0 <= self.read_noise_e.low <= self.read_noise_e.high <= 1e5:
            raise ValueError("read_noise_e must lie between 0 and 100000")
        return self


class SharpeningSettings(Settings):
    """Unsharp masking by the device's software."""

    amount: Range = Range(low=0.3, high=0.3)
    radius_px: Range = Range(low=1, high=1)
    """The mask's standard deviation in pixels."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 0 <= self.amount.low <= self.amount.high <= 10:
            raise ValueError("amount must lie between 0 and 10")
        if not 0.1 <= self.radius_px.low <= self.radius_px.high <= 20:
            raise ValueError("radius_px must lie between 0.1 and 20")
        return self


class JpegSettings(Settings):
    """How the image is compressed."""

    quality: Range = Range(low=40, high=90)
    """1 to 100; a range is drawn as whole numbers, both ends included."""
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
    grid_shift: bool = True
    """Shift the crop by 0 to 7 px in x and y, so that the blocks of the source's own JPEG lie elsewhere."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 1 <= self.quality.low <= self.quality.high <= 100:
            raise ValueError("quality must lie between 1 and 100")
        if self.quality.low % 1 or self.quality.high % 1:
            raise ValueError("quality must be a whole number, or a range between two")
        return self


class ChainSettings(Settings):
    """The whole chain; a step set to null is left out."""

    light: Literal["linear", "gamma"] = "linear"
    """Whether blur and noise work on light (the sRGB curve undone) or on the codes as they are."""
    radii_px: tuple[float, ...] | None = None
    """The disc's radius for each focus class in output pixels; the default table where radii_um is not given."""
    radii_um: tuple[float, ...] | None = None
    """The same in micrometres of the specimen; only tiles of known mpp can be used then."""
    bokeh: BokehSettings | None = BokehSettings()
    sensor: SensorSettings | None = SensorSettings()
    sharpening: SharpeningSettings | None = None
    jpeg: JpegSettings | None = JpegSettings()
    mpp: float | None = Field(default=None, gt=0)
    """Resample tiles to this many micrometres a pixel; null keeps each tile's own."""
    fast: bool = False
    """Blur large discs at half resolution, which is faster and not exact."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.radii_px is not None and self.radii_um is not None:
            raise ValueError("name radii_px or radii_um, not both")
        if self.fast and self.bokeh is not None and self.bokeh.kind != "disc":
            raise ValueError("fast blurs discs only; set fast: false or bokeh.kind: disc")
        table = self.radii_um if self.radii_um is not None else self.radii_px
        if table is None:
            return self
        if not table:
            raise ValueError("the table of radii is empty")
        if table[0] < 0 or list(table) != sorted(table):
            raise ValueError("the radii must start at 0 or more and never fall")
        if self.radii_px is not None and table[-1] > 30:
            raise ValueError(f"the largest radius is {table[-1]:g} px; at most 30 px are possible")
        return self
