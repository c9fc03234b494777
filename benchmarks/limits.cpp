// The machine's limits, by the instructions that the engine's kernels multiply with: products of int8 a second from
// registers alone, and bytes a second that copying moves. Prints one "name value" a line.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best of several runs, in units a nanosecond.
template <typename Work>
double rate(double units, Work work) {
  double best = 1e9;
  for (int run = 0; run < 20; ++run) {
    const double begin = seconds();
    work();
    best = std::min(best, seconds() - begin);
  }
  return units / best / 1e9;
}

#if defined(__x86_64__) && defined(__GNUC__)

constexpr long kRounds = 1000000;

#define ON(instruction, i) instruction " %%" REGISTER "15, %%" REGISTER #i ", %%" REGISTER #i "\n"
#define ON_ALL(instruction)                                                                        \
  ON(instruction, 0) ON(instruction, 1) ON(instruction, 2) ON(instruction, 3) ON(instruction, 4)   \
  ON(instruction, 5) ON(instruction, 6) ON(instruction, 7) ON(instruction, 8) ON(instruction, 9)   \
  ON(instruction, 10) ON(instruction, 11)
#define CLOBBERED                                                                                   \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"

#define REGISTER "ymm"
double maddubs() {
  return rate(12.0 * kRounds, [] { for (long k = 0; k < kRounds; ++k) __asm__ volatile(ON_ALL("vpmaddubsw")::: CLOBBERED); });
}

double madd() {
  return rate(12.0 * kRounds, [] { for (long k = 0; k < kRounds; ++k) __asm__ volatile(ON_ALL("vpmaddwd")::: CLOBBERED); });
}
#undef REGISTER

#define REGISTER "zmm"
double dot() {
  return rate(12.0 * kRounds, [] { for (long k = 0; k < kRounds; ++k) __asm__ volatile(ON_ALL("vpdpbusd")::: CLOBBERED); });
}
#undef REGISTER

void print_products() {
  if (__builtin_cpu_supports("avx512vnni")) {
    std::printf("int8 %f\nint8_signed %f\n", 64 * dot(), 64 * dot());
  } else if (__builtin_cpu_supports("avx2")) {
    // Of an input without negative values two vectors of 32 products are added before one vpmaddwd widens them; of any
    // other, 16 products are one vpmaddwd.
    const double pairs = maddubs(), widening = madd();
    std::printf("int8 %f\nint8_signed %f\n", 64 / (2 / pairs + 1 / widening), 16 * widening);
  }
}

#else
void print_products() {}
#endif

}  // namespace

int main() {
  print_products();
  constexpr std::size_t kBytes = std::size_t{128} << 20;
  std::vector<char> from(kBytes, 1), to(kBytes, 2);
  std::printf("copy %f\n", rate(2.0 * kBytes, [&] { std::memcpy(to.data(), from.data(), kBytes); }));
  return to[kBytes / 2] == 1 ? 0 : 1;
}
