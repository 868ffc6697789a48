// The shaders, with the constants that Python puts in front (NEAR_PLANE, EPS_2D, MIN_ALPHA, MAX_ALPHA, SH_C1 to SH_C3,
// and from colormap.py NOT_A_NUMBER, FADE_LOW, FADE_SPAN, FADE_CHROMA, LUMA).

const TEXTURE_WIDTH = 2048;
const BATCH = 4096; // gaussians per instance: an instance of one alone costs some drivers more than its pixels

const SHADER_HEAD = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
uniform int uCount;
uvec4 texel(usampler2D source, int i) {
  return texelFetch(source, ivec2(i & ${TEXTURE_WIDTH - 1}, i / ${TEXTURE_WIDTH}), 0);
}`;

const FULL_VERTEX_SHADER = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`;

// First pass: one fragment per gaussian projects it and finds its colour; the results go to integer textures, which
// every device can render to. The second pass then has little to do at the corners of each triangle.
const PROJECT_SHADER = `${SHADER_HEAD}
uniform usampler2D uBase, uSh, uValue;
uniform sampler2D uColormap;
uniform mat3 uRotation;   // world -> camera
uniform vec3 uShift, uEye, uCropLow, uCropHigh;
uniform vec4 uK;          // fx fy cx cy, pixels of the target
uniform vec2 uSize;       // pixels of the target
uniform float uScale;     // size slider
uniform int uDegree, uShTexels;
uniform bool uCrop, uByValue;
layout(location = 0) out uvec4 outPlace;  // centre, vector to the end of the long axis, pixels
layout(location = 1) out uvec4 outShape;  // short axis / long axis, Cholesky factor of the inverse covariance
layout(location = 2) out uvec4 outColor;  // red, green, blue, opacity; opacity 0 means not drawn

mat3 rotation(vec4 q) {  // wxyz, unit; columns are the local axes
  vec3 v = q.yzw, v2 = 2.0 * v, d = v * v2;
  vec3 w = q.x * v2, m = v.xxy * v2.yzz;  // m: 2xy, 2xz, 2yz
  return mat3(1.0 - d.y - d.z, m.x + w.z, m.y - w.y, m.x - w.z, 1.0 - d.x - d.z, m.z + w.x, m.y + w.y, m.z - w.x,
    1.0 - d.x - d.y);
}

vec3 shColor(int splat, vec3 d) {
  float c[48];
  for (int t = 0; t < uShTexels; t++) {
    uvec4 w = texel(uSh, splat * uShTexels + t);
    for (int k = 0; k < 4; k++) {
      vec2 pair = unpackHalf2x16(w[k]);
      c[8 * t + 2 * k] = pair.x;
      c[8 * t + 2 * k + 1] = pair.y;
    }
  }
#define SH(i) vec3(c[3 * i], c[3 * i + 1], c[3 * i + 2])
  float x = d.x, y = d.y, z = d.z;
  vec3 sum = ${SH_C1} * (z * SH(1) - y * SH(0) - x * SH(2));
  if (uDegree > 1) {
    float xx = x * x, yy = y * y, zz = z * z;
    sum += ${SH_C2[0]} * x * y * SH(3) + ${SH_C2[1]} * y * z * SH(4) + ${SH_C2[2]} * (2.0 * zz - xx - yy) * SH(5)
      + ${SH_C2[3]} * x * z * SH(6) + ${SH_C2[4]} * (xx - yy) * SH(7);
    if (uDegree > 2) {
      sum += ${SH_C3[0]} * y * (3.0 * xx - yy) * SH(8) + ${SH_C3[1]} * x * y * z * SH(9)
        + ${SH_C3[2]} * y * (4.0 * zz - xx - yy) * SH(10) + ${SH_C3[3]} * z * (2.0 * zz - 3.0 * (xx + yy)) * SH(11)
        + ${SH_C3[4]} * x * (4.0 * zz - xx - yy) * SH(12) + ${SH_C3[5]} * z * (xx - yy) * SH(13)
        + ${SH_C3[6]} * x * (xx - 3.0 * yy) * SH(14);
    }
  }
  return sum;
}

void main() {
  outPlace = outShape = outColor = uvec4(0u);
  int splat = int(gl_FragCoord.y) * ${TEXTURE_WIDTH} + int(gl_FragCoord.x);
  if (splat >= uCount) return;
  uvec4 third = texel(uBase, 3 * splat + 2);
  float opacity = unpackUnorm2x16(third.w).y;
  if (opacity < ${MIN_ALPHA}) return;
  vec4 first = uintBitsToFloat(texel(uBase, 3 * splat));
  vec3 mean = first.xyz;
  if (uCrop && (any(lessThan(mean, uCropLow)) || any(greaterThan(mean, uCropHigh)))) return;
  vec3 p = uRotation * mean + uShift;
  if (p.z < ${NEAR_PLANE}) return;
  vec4 second = uintBitsToFloat(texel(uBase, 3 * splat + 1));
  vec3 scales = uScale * vec3(first.w, second.xy);
  mat3 axes = rotation(vec4(second.zw, uintBitsToFloat(third.xy)));

  // EWA: rows of J W R S; the covariance is their Gram matrix plus the low-pass, its determinant free of cancellation.
  vec2 margin = 0.15 * uSize / uK.xy;
  vec2 t = clamp(p.xy / p.z, -uK.zw / uK.xy - margin, (uSize - uK.zw) / uK.xy + margin);
  vec3 u = (vec3(uK.x, 0.0, -uK.x * t.x) / p.z) * uRotation * axes * scales;
  vec3 v = (vec3(0.0, uK.y, -uK.y * t.y) / p.z) * uRotation * axes * scales;
  float uu = dot(u, u), vv = dot(v, v), b = dot(u, v);
  float a = uu + ${EPS_2D}, c = vv + ${EPS_2D};
  vec3 normal = cross(u, v);
  float det = dot(normal, normal) + ${EPS_2D} * (uu + c);
  vec2 center = uK.xy * p.xy / p.z + uK.zw;

  // The ellipse on which alpha falls to MIN_ALPHA, along the principal axes of the covariance.
  float middle = 0.5 * (a + c), spread = length(vec2(0.5 * (a - c), b));
  float long2 = middle + spread, short2 = det / long2;
  vec2 axis = abs(b) < 1e-6 * middle ? (a >= c ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(b, long2 - a));
  float reach = sqrt(2.0 * log(opacity / ${MIN_ALPHA})) * 1.001 + 0.001;
  vec2 extent = reach * (abs(axis) * sqrt(long2) + abs(axis.yx) * sqrt(short2));
  if (any(lessThan(center + extent, vec2(0.0))) || any(greaterThan(center - extent, uSize))) return;

  uint row = uByValue ? texel(uValue, splat).x : 0u;
  bool faded = uByValue && row == ${NOT_A_NUMBER}u;
  vec3 color;
  if (uByValue && !faded) {
    color = texelFetch(uColormap, ivec2(row, 0), 0).rgb;
  } else {
    color = vec3(unpackHalf2x16(third.z), unpackHalf2x16(third.w).x);
    if (uDegree > 0) color += shColor(splat, normalize(mean - uEye));
    if (faded) color = ${FADE_LOW} + ${FADE_SPAN} * mix(vec3(dot(vec3(${LUMA}), color)), color, ${FADE_CHROMA});
  }
  outPlace = floatBitsToUint(vec4(center, reach * sqrt(long2) * axis));
  outShape = floatBitsToUint(vec4(sqrt(short2 / long2), sqrt(c / det), -b / sqrt(det * c), inversesqrt(c)));
  outColor = floatBitsToUint(vec4(max(color, 0.0), opacity));
}`;

const VERTEX_SHADER = `${SHADER_HEAD}
uniform usampler2D uOrder, uPlaces, uShapes, uColors;
uniform vec2 uSize;
flat out vec4 vColor;
flat out vec3 vFactor;
flat out vec2 vCenter;
void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);  // outside: not drawn
  int slot = gl_InstanceID * ${BATCH} + gl_VertexID / 3;
  if (slot >= uCount) return;
  int splat = int(texel(uOrder, slot).x);
  vColor = uintBitsToFloat(texel(uColors, splat));
  if (vColor.a == 0.0) return;
  vec4 place = uintBitsToFloat(texel(uPlaces, splat)), shape = uintBitsToFloat(texel(uShapes, splat));
  vCenter = place.xy;
  vFactor = shape.yzw;
  // one triangle about the ellipse: more pixels than a quad, half the primitives
  vec2 corner = vec2[3](vec2(0.0, 2.0), vec2(-1.7320509, -1.0), vec2(1.7320509, -1.0))[gl_VertexID % 3];
  vec2 offset = corner.x * place.zw + corner.y * shape.x * vec2(-place.w, place.z);
  gl_Position = vec4((vCenter + offset) / uSize * 2.0 - 1.0, 0.0, 1.0);  // row 0 of the target is the top of the image
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
flat in vec4 vColor;
flat in vec3 vFactor;
flat in vec2 vCenter;
out vec4 outColor;
void main() {
  vec2 d = gl_FragCoord.xy - vCenter;
  vec2 q = vec2(vFactor.x * d.x + vFactor.y * d.y, vFactor.z * d.y);
  float alpha = min(${MAX_ALPHA}, vColor.a * exp(-0.5 * dot(q, q)));
  if (alpha < ${MIN_ALPHA}) discard;
  outColor = vec4(vColor.rgb * alpha, alpha);
}`;

const COPY_FRAGMENT_SHADER = `#version 300 es
precision highp float;
uniform sampler2D uTarget;
uniform ivec4 uPlace;      // left and bottom on the canvas, width, height
uniform vec4 uBackground;  // premultiplied
out vec4 outColor;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy) - uPlace.xy;
  at.y = uPlace.w - 1 - at.y;
  vec4 color = textureSize(uTarget, 0) == uPlace.zw ? texelFetch(uTarget, at, 0)
    : texture(uTarget, (vec2(at) + 0.5) / vec2(uPlace.zw));  // coarser while it moves
  color += (1.0 - color.a) * uBackground;
  outColor = vec4(min(color.rgb, vec3(color.a)), color.a);
}`;
