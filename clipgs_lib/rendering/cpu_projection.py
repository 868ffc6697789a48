"""Numba kernels that carry gaussians into the image plane and their gradients back.

The arithmetic is that of EWA splatting (Zwicker et al. 2001) as 3D Gaussian splatting uses it
(Kerbl et al. 2023): the local affine approximation of the perspective at the centre, a low-pass
of ``EPS2D`` pixels squared, spherical harmonics seen from the camera. Everything here runs in
float64, one gaussian at a time, and is handed on in float32; a gaussian costs well below a
microsecond, and needles and far-off scenes keep their digits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ..geometry import SH_C0, SH_C1, SH_C2, SH_C3
from .cameras import NEAR

EPS2D = 0.3
FAR = 1e10
ALPHA_MIN = 1.0 / 255.0
FOV_MARGIN = 0.3
MAX_OFFSET = 1e30  # pixels; farther off, float32 could not hold the distance to a pixel
INVISIBLE = np.uint32(0xFFFFFFFF)
# Exponents are kept in base 2: alpha = opacity * 2^-(u^2 + v^2), with u and v scaled by this.
HALF_LOG2E = 0.5 * math.log2(math.e)
# Columns of the record that the tile kernels read, one row per visible gaussian.
COLUMNS = 9  # A, B, C, opacity, red, green, blue, depth, unused
_LN2_2 = 2.0 * math.log(2.0)

_K20, _K21, _K22, _K23, _K24 = SH_C2
_K30, _K31, _K32, _K33, _K34, _K35, _K36 = SH_C3


@njit(cache=True, error_model="numpy", inline="always")
def _rotation(qw, qx, qy, qz):
    """Rows of the rotation matrix of a unit quaternion."""
    return (
        1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy - qw * qz), 2 * (qx * qz + qw * qy),
        2 * (qx * qy + qw * qz), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz - qw * qx),
        2 * (qx * qz - qw * qy), 2 * (qy * qz + qw * qx), 1 - 2 * (qx * qx + qy * qy),
    )  # fmt: skip


@njit(cache=True, error_model="numpy", inline="always")
def _basis(degree, x, y, z, out):
    """Spherical harmonics up to ``degree`` at a unit direction, into ``out [16]``."""
    out[0] = SH_C0
    if degree > 0:
        out[1], out[2], out[3] = -SH_C1 * y, SH_C1 * z, -SH_C1 * x
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        out[4], out[5], out[6] = _K20 * x * y, _K21 * y * z, _K22 * (2 * zz - xx - yy)
        out[7], out[8] = _K23 * x * z, _K24 * (xx - yy)
        if degree > 2:
            out[9], out[10] = _K30 * y * (3 * xx - yy), _K31 * x * y * z
            out[11], out[12] = _K32 * y * (4 * zz - xx - yy), _K33 * z * (2 * zz - 3 * xx - 3 * yy)
            out[13], out[14] = _K34 * x * (4 * zz - xx - yy), _K35 * z * (xx - yy)
            out[15] = _K36 * x * (xx - 3 * yy)


@njit(cache=True, error_model="numpy", inline="always")
def _limits(camera, width, height):
    """Bounds of x/z and y/z inside which the local affine approximation is taken."""
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    margin_x, margin_y = FOV_MARGIN * 0.5 * width / fx, FOV_MARGIN * 0.5 * height / fy
    return -cx / fx - margin_x, (width - cx) / fx + margin_x, -cy / fy - margin_y, (height - cy) / fy + margin_y


@njit(cache=True, error_model="numpy", inline="always")
def _jacobian(camera, x, y, z, width, height):
    """The four non-zero entries of the projection's Jacobian ``[[j00, 0, j02], [0, j11, j12]]``."""
    fx, fy = camera[12], camera[13]
    low_x, high_x, low_y, high_y = _limits(camera, width, height)
    tx = min(high_x, max(low_x, x / z))
    ty = min(high_y, max(low_y, y / z))
    return fx / z, -fx * tx / z, fy / z, -fy * ty / z


@njit(cache=True, error_model="numpy", inline="always")
def _footprint(camera, j00, j02, j11, j12, r, s0, s1, s2, half):
    """Image-plane half matrix ``J W R S`` into ``half [2, 3]``; its product with its transpose is the covariance."""
    for i in range(3):
        w0 = camera[0] * r[i] + camera[1] * r[3 + i] + camera[2] * r[6 + i]
        w1 = camera[4] * r[i] + camera[5] * r[3 + i] + camera[6] * r[6 + i]
        w2 = camera[8] * r[i] + camera[9] * r[3 + i] + camera[10] * r[6 + i]
        s = s0 if i == 0 else (s1 if i == 1 else s2)
        half[0, i] = (j00 * w0 + j02 * w2) * s
        half[1, i] = (j11 * w1 + j12 * w2) * s


@njit(cache=True, error_model="numpy", inline="always")
def _color(basis, count, g, channel, sh0, shN):
    value = basis[0] * sh0[g, 0, channel]
    for k in range(1, count):
        value += basis[k] * shN[g, k - 1, channel]
    return value + 0.5


@njit(cache=True, error_model="numpy", nogil=True)
def project(
    start, stop, means, quats, scales, opacities, sh0, shN, camera, position, degree, width, height,
    keys, centers, records, rects,
):  # fmt: skip
    """Project gaussians ``start..stop``; those that touch no pixel centre, or are not finite, get key INVISIBLE.

    Args:
        camera: ``[16]`` float64: the three upper rows of the viewmat, then fx, fy, cx, cy.
        position: ``[3]`` float64, the camera in the world.
        keys: out ``[N]`` uint32, bits of the float32 depth (monotone, since depths are positive).
        centers: out ``[N, 2]`` float64 pixels.
        records: out ``[N, COLUMNS]`` float32, see COLUMNS.
        rects: out ``[N, 4]`` int32, pixels x0, y0, x1, y1 (ends excluded) that can reach 1/255.
    """
    basis, half, key = np.empty(16), np.empty((2, 3)), np.empty(1, np.float32)
    count = (degree + 1) * (degree + 1)
    scale = math.sqrt(HALF_LOG2E)
    for g in range(start, stop):
        keys[g] = INVISIBLE
        opacity = np.float64(opacities[g])
        px, py, pz = np.float64(means[g, 0]), np.float64(means[g, 1]), np.float64(means[g, 2])
        z = camera[8] * px + camera[9] * py + camera[10] * pz + camera[11]
        if not (z >= NEAR and z <= FAR and opacity >= ALPHA_MIN and math.isfinite(opacity)):
            continue
        x = camera[0] * px + camera[1] * py + camera[2] * pz + camera[3]
        y = camera[4] * px + camera[5] * py + camera[6] * pz + camera[7]
        qw, qx, qy, qz = (np.float64(quats[g, 0]), np.float64(quats[g, 1]),
                          np.float64(quats[g, 2]), np.float64(quats[g, 3]))  # fmt: skip
        length = math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        s0, s1, s2 = np.float64(scales[g, 0]), np.float64(scales[g, 1]), np.float64(scales[g, 2])
        if not (length > 0 and math.isfinite(length) and math.isfinite(x + y + s0 + s1 + s2)):
            continue
        r = _rotation(qw / length, qx / length, qy / length, qz / length)
        j00, j02, j11, j12 = _jacobian(camera, x, y, z, width, height)
        _footprint(camera, j00, j02, j11, j12, r, s0, s1, s2, half)
        c00, c01, c11 = EPS2D, 0.0, EPS2D
        for i in range(3):
            c00 += half[0, i] * half[0, i]
            c01 += half[0, i] * half[1, i]
            c11 += half[1, i] * half[1, i]
        det = c00 * c11 - c01 * c01
        u, v = camera[12] * x / z + camera[14], camera[13] * y / z + camera[15]
        if not (det > 0 and math.isfinite(det) and abs(u) + abs(v) < MAX_OFFSET):
            continue
        # alpha >= 1/255 inside sqrt(2 ln(255 opacity)) standard deviations; a hair more against rounding
        reach = math.sqrt(2 * max(math.log(opacity / ALPHA_MIN), 0.0)) * (1 + 1e-5) + 1e-3
        rx, ry = reach * math.sqrt(c00), reach * math.sqrt(c11)
        x0, x1 = max(math.ceil(max(u - rx - 0.5, -1.0)), 0), math.floor(min(u + rx - 0.5, width + 1.0)) + 1
        y0, y1 = max(math.ceil(max(v - ry - 0.5, -1.0)), 0), math.floor(min(v + ry - 0.5, height + 1.0)) + 1
        x1, y1 = min(x1, width), min(y1, height)
        if x0 >= x1 or y0 >= y1:
            continue
        dx, dy, dz = px - position[0], py - position[1], pz - position[2]
        distance = math.sqrt(dx * dx + dy * dy + dz * dz)
        _basis(degree, dx / distance, dy / distance, dz / distance, basis)
        red = _color(basis, count, g, 0, sh0, shN)
        green = _color(basis, count, g, 1, sh0, shN)
        blue = _color(basis, count, g, 2, sh0, shN)
        if not math.isfinite(red + green + blue):
            continue
        key[0] = z
        keys[g] = key.view(np.uint32)[0]
        centers[g, 0], centers[g, 1] = u, v
        rects[g, 0], rects[g, 1], rects[g, 2], rects[g, 3] = x0, y0, x1, y1
        # Cholesky factor of the inverse covariance: (A dx + B dy)^2 + (C dy)^2 never turns negative
        records[g, 0] = scale * math.sqrt(c11 / det)
        records[g, 1] = -scale * c01 / math.sqrt(det * c11)
        records[g, 2] = scale / math.sqrt(c11)
        records[g, 3] = opacity
        records[g, 4], records[g, 5], records[g, 6] = max(red, 0.0), max(green, 0.0), max(blue, 0.0)
        records[g, 7] = z
