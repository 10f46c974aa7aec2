// Compresses a checkpoint directory ten to one: shrink DIR OUT
#include <iostream>

#include "upg/compress.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: shrink DIR OUT\n";
    return 2;
  }
  try {
    const upg::CompressReport report = upg::compress(argv[1], argv[2]);
    std::cout << report.model.weight_bytes << " bytes of weights, " << report.model.ratio_fp32 << " to 1\n";
  } catch (const upg::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
