// Whole reads and writes of files that are open, and bringing a folder to the disk. Opening and naming them is the
// business of atomic_file.h and mapped_file.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace upg {

/// All of `data` to `offset`, in bytes, of the file behind `fd`, which is called `path` in errors; gaps read as zeros.
/// Throws Error(kIo) with the system's reason (disk full...); a part may be written then.
void write_all_at(int fd, uint64_t offset, std::span<const std::byte> data, const std::string& path);

/// Fills `data` from `offset`, in bytes, of the file behind `fd`, which is called `path` in errors. Throws Error(kIo)
/// with the system's reason, and where the file ends before.
void read_all_at(int fd, uint64_t offset, std::span<std::byte> data, const std::string& path);

/// Brings to the disk which files the folder has, so that a rename in it outlives a power failure. Some file systems
/// refuse, which is no error: the files are complete either way.
void sync_folder(const std::string& folder);

}  // namespace upg
