"""Numba kernels that carry gaussians into the image plane and their gradients back.

The arithmetic is that of EWA splatting (Zwicker et al. 2001) as 3D Gaussian splatting uses it (Kerbl et al. 2023):
the local affine approximation of the perspective at the centre, a low-pass of ``EPS2D`` pixels squared, spherical
harmonics seen from the camera. Everything here runs in float64, one gaussian at a time, and is handed on in float32:
it costs well below a microsecond, and needles and far-off scenes keep their digits. Forward and backward share one
file because numba notices a change of the file that a cached kernel stands in, and of no other.
"""

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
RECORD = 8  # numbers the tile kernels read of a gaussian: A, B, C, opacity, red, green, blue, depth

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
        records: out ``[N, RECORD]`` float32: A, B, C, opacity, red, green, blue, depth.
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


@njit(cache=True, error_model="numpy", inline="always")
def _basis_gradient(degree, x, y, z, t):
    """Gradient by direction of ``sum(t[k] * Y_k)`` at ``(x, y, z)``."""
    gx, gy, gz = 0.0, 0.0, 0.0
    if degree > 0:
        gx, gy, gz = -SH_C1 * t[3], -SH_C1 * t[1], SH_C1 * t[2]
    if degree > 1:
        gx += _K20 * y * t[4] - 2 * _K22 * x * t[6] + _K23 * z * t[7] + 2 * _K24 * x * t[8]
        gy += _K20 * x * t[4] + _K21 * z * t[5] - 2 * _K22 * y * t[6] - 2 * _K24 * y * t[8]
        gz += _K21 * y * t[5] + 4 * _K22 * z * t[6] + _K23 * x * t[7]
    if degree > 2:
        xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
        gx += _K30 * 6 * xy * t[9] + _K31 * yz * t[10] - _K32 * 2 * xy * t[11] - _K33 * 6 * xz * t[12]
        gx += _K34 * (4 * zz - 3 * xx - yy) * t[13] + _K35 * 2 * xz * t[14] + _K36 * 3 * (xx - yy) * t[15]
        gy += _K30 * 3 * (xx - yy) * t[9] + _K31 * xz * t[10] + _K32 * (4 * zz - xx - 3 * yy) * t[11]
        gy += -_K33 * 6 * yz * t[12] - _K34 * 2 * xy * t[13] - _K35 * 2 * yz * t[14] - _K36 * 6 * xy * t[15]
        gz += _K31 * xy * t[10] + _K32 * 8 * yz * t[11] + _K33 * (6 * zz - 3 * xx - 3 * yy) * t[12]
        gz += _K34 * 8 * xz * t[13] + _K35 * (xx - yy) * t[14]
    return gx, gy, gz


@njit(cache=True, error_model="numpy", inline="always")
def _quaternion_gradient(w, x, y, z, v):
    """Gradient by a unit quaternion, given the gradient ``v [9]`` by the entries of its rotation matrix."""
    return (
        2 * (x * (v[7] - v[5]) + y * (v[2] - v[6]) + z * (v[3] - v[1])),
        2 * (-2 * x * (v[4] + v[8]) + y * (v[1] + v[3]) + z * (v[2] + v[6]) + w * (v[7] - v[5])),
        2 * (x * (v[1] + v[3]) - 2 * y * (v[0] + v[8]) + z * (v[5] + v[7]) + w * (v[2] - v[6])),
        2 * (x * (v[2] + v[6]) + y * (v[5] + v[7]) - 2 * z * (v[0] + v[4]) + w * (v[3] - v[1])),
    )


@njit(cache=True, error_model="numpy", inline="always")
def _color_gradient(g, px, py, pz, position, degree, v_colors, sh0, shN, basis, weights, v_sh0, v_shN):
    """Add the gradient by SH; return the gradient by the centre that comes through the direction of view."""
    dx, dy, dz = px - position[0], py - position[1], pz - position[2]
    distance = math.sqrt(dx * dx + dy * dy + dz * dz)
    nx, ny, nz = dx / distance, dy / distance, dz / distance
    _basis(degree, nx, ny, nz, basis)
    count = (degree + 1) * (degree + 1)
    weights[:] = 0.0
    for channel in range(3):
        v = v_colors[channel]
        if _color(basis, count, g, channel, sh0, shN) < 0.0:
            continue  # clamped at black
        v_sh0[g, 0, channel] += np.float32(basis[0] * v)
        for k in range(1, count):
            v_shN[g, k - 1, channel] += np.float32(basis[k] * v)
            weights[k] += v * shN[g, k - 1, channel]
    gx, gy, gz = _basis_gradient(degree, nx, ny, nz, weights)
    along = gx * nx + gy * ny + gz * nz
    return (gx - along * nx) / distance, (gy - along * ny) / distance, (gz - along * nz) / distance


@njit(cache=True, error_model="numpy", nogil=True)
def project_backward(
    start, stop, positions, totals, means, quats, scales, opacities, sh0, shN, camera, position, degree,
    width, height, v_means, v_quats, v_scales, v_opacities, v_sh0, v_shN,
):  # fmt: skip
    """Add to the six attribute gradients what gaussians ``start..stop`` get from one view.

    Args:
        positions: ``[N]`` int32, place in the depth order, -1 for the invisible.
        totals: ``[V, MOMENTS]`` float64, sums over the pixels, see `cpu_tiles.composite_backward`.
        v_means, v_quats, v_scales, v_opacities, v_sh0, v_shN: in and out, shaped as the attributes.
    """
    basis, weights, half, v_half = np.empty(16), np.empty(16), np.empty((2, 3)), np.empty((2, 3))
    v_r, p, s = np.empty(9), np.empty((2, 3)), np.empty(3)
    for g in range(start, stop):
        if positions[g] < 0:
            continue
        m = totals[positions[g]]
        if not m.any():  # hidden, or nothing depends on it
            continue
        px, py, pz = np.float64(means[g, 0]), np.float64(means[g, 1]), np.float64(means[g, 2])
        x = camera[0] * px + camera[1] * py + camera[2] * pz + camera[3]
        y = camera[4] * px + camera[5] * py + camera[6] * pz + camera[7]
        z = camera[8] * px + camera[9] * py + camera[10] * pz + camera[11]
        qw, qx, qy, qz = (np.float64(quats[g, 0]), np.float64(quats[g, 1]),
                          np.float64(quats[g, 2]), np.float64(quats[g, 3]))  # fmt: skip
        length = math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        qw, qx, qy, qz = qw / length, qx / length, qy / length, qz / length
        s[0], s[1], s[2] = scales[g, 0], scales[g, 1], scales[g, 2]
        r = _rotation(qw, qx, qy, qz)
        j00, j02, j11, j12 = _jacobian(camera, x, y, z, width, height)
        _footprint(camera, j00, j02, j11, j12, r, s[0], s[1], s[2], half)
        c00, c01, c11 = EPS2D, 0.0, EPS2D
        for k in range(3):
            c00 += half[0, k] * half[0, k]
            c01 += half[0, k] * half[1, k]
            c11 += half[1, k] * half[1, k]
        det = c00 * c11 - c01 * c01
        a, b, c = c11 / det, -c01 / det, c00 / det
        v_u, v_v = -(a * m[0] + b * m[1]), -(b * m[0] + c * m[1])
        v_opacities[g] -= np.float32(m[5] / opacities[g])
        # through the inverse: V = -Q G Q, with G the symmetric gradient by the inverse covariance Q
        g00, g01, g11 = 0.5 * m[2], 0.5 * m[3], 0.5 * m[4]
        t00, t01, t10, t11 = a * g00 + b * g01, a * g01 + b * g11, b * g00 + c * g01, b * g01 + c * g11
        v00, v01, v11 = -(t00 * a + t01 * b), -(t00 * b + t01 * c), -(t10 * b + t11 * c)
        for k in range(3):
            v_half[0, k] = 2 * (v00 * half[0, k] + v01 * half[1, k])
            v_half[1, k] = 2 * (v01 * half[0, k] + v11 * half[1, k])
            p[0, k] = j00 * camera[k] + j02 * camera[8 + k]
            p[1, k] = j11 * camera[4 + k] + j12 * camera[8 + k]
        v_j00, v_j02, v_j11, v_j12 = 0.0, 0.0, 0.0, 0.0
        for row in range(3):
            v_p0, v_p1 = 0.0, 0.0
            for k in range(3):
                v_p0 += v_half[0, k] * r[3 * row + k] * s[k]
                v_p1 += v_half[1, k] * r[3 * row + k] * s[k]
                v_r[3 * row + k] = (p[0, row] * v_half[0, k] + p[1, row] * v_half[1, k]) * s[k]
            v_j00 += v_p0 * camera[row]
            v_j02 += v_p0 * camera[8 + row]
            v_j11 += v_p1 * camera[4 + row]
            v_j12 += v_p1 * camera[8 + row]
        for k in range(3):
            v_s = 0.0
            for row in range(3):
                v_s += (p[0, row] * v_half[0, k] + p[1, row] * v_half[1, k]) * r[3 * row + k]
            v_scales[g, k] += np.float32(v_s)
        dw, dx, dy, dz = _quaternion_gradient(qw, qx, qy, qz, v_r)
        along = dw * qw + dx * qx + dy * qy + dz * qz
        v_quats[g, 0] += np.float32((dw - along * qw) / length)
        v_quats[g, 1] += np.float32((dx - along * qx) / length)
        v_quats[g, 2] += np.float32((dy - along * qy) / length)
        v_quats[g, 3] += np.float32((dz - along * qz) / length)
        fx, fy = camera[12], camera[13]
        low_x, high_x, low_y, high_y = _limits(camera, width, height)
        v_x, v_y = v_u * fx / z, v_v * fy / z
        v_z = m[9] - (v_u * fx * x + v_v * fy * y) / (z * z) - (v_j00 * fx + v_j11 * fy) / (z * z)
        if low_x <= x / z and x / z <= high_x:
            v_x -= v_j02 * fx / (z * z)
            v_z -= 2 * v_j02 * j02 / z
        else:
            v_z -= v_j02 * j02 / z
        if low_y <= y / z and y / z <= high_y:
            v_y -= v_j12 * fy / (z * z)
            v_z -= 2 * v_j12 * j12 / z
        else:
            v_z -= v_j12 * j12 / z
        d0, d1, d2 = _color_gradient(
            g, px, py, pz, position, degree, m[6:9], sh0, shN, basis, weights, v_sh0, v_shN
        )  # fmt: skip
        v_means[g, 0] += np.float32(camera[0] * v_x + camera[4] * v_y + camera[8] * v_z + d0)
        v_means[g, 1] += np.float32(camera[1] * v_x + camera[5] * v_y + camera[9] * v_z + d1)
        v_means[g, 2] += np.float32(camera[2] * v_x + camera[6] * v_y + camera[10] * v_z + d2)
