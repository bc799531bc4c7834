// The numbers of sRGB and CIE Lab (D65), as in reference/. Constants only: inline functions must
// not be shared between instruction sets (see README.md).
#pragma once

namespace disco_fast {

constexpr double kWhiteX = 0.950456, kWhiteZ = 1.088754;

// Luminance of linear RGB.
constexpr double kLumaR = 0.212671, kLumaG = 0.715160, kLumaB = 0.072169;

// XYZ to linear RGB.
constexpr double kRx = 3.240479, kRy = -1.537150, kRz = -0.498535;
constexpr double kGx = -0.969256, kGy = 1.875991, kGz = 0.041556;
constexpr double kBx = 0.055648, kBy = -0.204043, kBz = 1.057311;

// Where a curve passes into its linear part.
constexpr double kLinearBelow = 0.04045;        // of an sRGB value
constexpr double kSrgbLinearBelow = 0.0031308;  // of a linear value
constexpr double kLightnessLinearBelow = 0.008856;
constexpr double kLinearF = 0.20689303;  // its cube root

}  // namespace disco_fast
