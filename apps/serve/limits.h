// What a request may ask for at most. Errors name the field and the number here.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace upg::serve {

constexpr size_t kMaxHeaderBytes = 32 << 10;  // request line and headers together
constexpr size_t kMaxBodyBytes = 16 << 20;
constexpr int kMaxJsonDepth = 64;
constexpr size_t kMaxJsonKeys = 4096;  // of one object: looking one up is linear
constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxPrompts = 1024;    // of one request
constexpr uint64_t kMaxChoices = 16;    // n
constexpr size_t kMaxSequences = 2048;  // prompts times n
constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr size_t kMaxBiasEntries = 1024;
constexpr size_t kMaxTools = 128;
constexpr size_t kMaxFormChoices = 1024;  // texts of guided_choice
constexpr uint64_t kMaxTopLogprobs = 20;

constexpr size_t kBytesAToken = 4;  // of a request's body, about: to refuse it under overload before it is read

constexpr std::chrono::seconds kHeaderTime{10};  // from a request's first byte to the end of its headers
constexpr std::chrono::seconds kBodyTime{60};    // from there to the end of its body
constexpr std::chrono::seconds kIdleTime{15};    // of a connection between requests
constexpr std::chrono::seconds kWriteTime{30};   // that a client may take nothing
constexpr std::chrono::seconds kDrainTime{30};   // from a signal to the end
constexpr std::chrono::seconds kSilence{10};     // of an event stream before a comment is sent

}  // namespace upg::serve
