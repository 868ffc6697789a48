"""Read and write 3D Gaussian splats in every common file format, and say what is wrong with a file.

One module per format (see `choose`). Log-scales and logit-opacities exist only inside these modules: a `Splats` is
always linear.
"""

from .choose import FORMATS, read_splats, sniff, writable_format, write_splats
from .diagnose import diagnose
from .doctor_report import Diagnosis, Finding
from .points import PointCloud, read_points
from .raw import FormatError, RawSplats, SplatWarning
