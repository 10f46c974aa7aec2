#!/usr/bin/env python3
"""Tests and measures the cuda device on a machine with an NVIDIA GPU.

  bench/gpu.py                                  builds with `./dev build cuda`, then tests and measures
  bench/gpu.py --build build/cuda               the same with what is built there already
  bench/gpu.py --out bench/results/h200.json    where the figures go [bench/results/<name of the GPU>.json]

Runs the cuda tests, again under compute-sanitizer's memcheck and racecheck where it is installed (--no-sanitizer leaves
that out), and `upg bench` on a made-up model of Phi-4's shapes at ten to one: prompts, generation, and the four ways of
launching a token's kernels; `upg bench --kernels`, and cuSPARSE on the same shape where CuPy is installed. Exits 1 if a
test fails.
"""
import argparse
import datetime
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEASUREMENTS = [
    ("prompts, generation, fusions", ["--prompt", "32,512,2048", "--context", "128,4096", "--tokens", "64",
                                      "--rounds", "5", "--fusion", "all"]),
    ("sequences together", ["--prompt", "2", "--context", "128", "--tokens", "32", "--rounds", "5",
                            "--streams", "1,2,8,16,32,64"]),
    ("int8 cache", ["--prompt", "2048", "--context", "4096,16000", "--tokens", "64", "--rounds", "5", "--kv", "int8"]),
]
# Ten and a hundred times slower than without; what is left out has no kernels that other tests do not run.
SANITIZED = {"memcheck": "*-CudaCompress.*:CudaSampling.*", "racecheck": "*TakeTurns:*ThreeSequences*:Sample.Gives*"}


def run(command, **options):
    print("+ " + " ".join(map(str, command)), file=sys.stderr)
    return subprocess.run([str(part) for part in command], **options)


def cusparse(densities):
    """cuSPARSE's CSR times a vector (float32 values, int32 columns) on the shape of `upg bench --kernels`, through CuPy."""
    try:
        import cupy
        import cupyx.scipy.sparse as sparse
    except ImportError:
        return None
    rows, cols, drawn = 17920, 5120, 64
    times = []
    for density in densities:
        mask = cupy.random.default_rng(5).random((drawn, cols)) < density
        block = sparse.csr_matrix(mask.astype(cupy.float32))
        nnz = block.nnz
        pointers = cupy.concatenate([block.indptr[:-1] + i * nnz for i in range(rows // drawn)] +
                                    [cupy.array([rows // drawn * nnz])]).astype(cupy.int32)
        # Copies that no cache holds together.
        copies = [sparse.csr_matrix((cupy.tile(block.data, rows // drawn), cupy.tile(block.indices, rows // drawn),
                                     pointers), shape=(rows, cols))
                  for _ in range(max(2, (256 << 20) // (8 * nnz * rows // drawn)))]
        x = cupy.ones(cols, cupy.float32)
        seconds = []
        for _ in range(6):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record()
            for matrix in copies:
                matrix @ x
            end.record()
            end.synchronize()
            seconds.append(1e-3 * cupy.cuda.get_elapsed_time(begin, end) / len(copies))
        times.append({"density": density, "seconds": sorted(seconds[1:])[2]})
        del copies
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, help="keep the made-up model in this file")
    parser.add_argument("--no-sanitizer", action="store_true")
    args = parser.parse_args()
    if args.build is None:
        run([ROOT / "dev", "build", "cuda"], check=True, cwd=ROOT)
        args.build = ROOT / "build" / "cuda"
    upg = args.build / "upg"
    tests = next((p for p in (args.build / "tests" / "cuda_test", args.build / "cuda_test") if p.exists()), None)
    if not upg.exists() or tests is None:
        sys.exit(f"gpu.py: {args.build} has no upg or no cuda_test")

    passed = {"cuda_test": run([tests]).returncode == 0}
    sanitizer = None if args.no_sanitizer else shutil.which("compute-sanitizer")
    for tool, which in SANITIZED.items() if sanitizer else ():
        passed[tool] = run([sanitizer, "--tool", tool, "--error-exitcode", "1", tests,
                            f"--gtest_filter={which}"], stdout=subprocess.DEVNULL).returncode == 0

    gpu = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                         capture_output=True, text=True, check=True).stdout.splitlines()[0]
    results = {"date": datetime.date.today().isoformat(), "gpu": gpu, "tests_passed": passed, "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or pathlib.Path(folder) / "phi-4.upg"
        for what, options in MEASUREMENTS:
            command = ["bench", "--shape", "phi-4", "--device", "cuda", *options]
            done = run([upg, *command, "--keep", model, "--json"], capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(done.stderr)
            results["runs"].append({"what": what, "command": "upg " + " ".join(command),
                                    "report": json.loads(done.stdout)})
    done = run([upg, "bench", "--kernels", "--device", "cuda", "--rounds", "5", "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    results["kernels"] = json.loads(done.stdout)
    results["cusparse"] = cusparse((0.01, 0.05, 0.1, 0.2, 0.5))
    name = gpu.split(",")[0].lower().replace("nvidia ", "").replace(" ", "_")
    out = args.out or ROOT / "bench" / "results" / f"{name}.json"
    out.write_text(json.dumps(results, indent=1) + "\n")
    for entry in results["runs"]:
        report = entry["report"]
        print(f"{entry['what']}: copies {report['read_bandwidth'] / 1e9:.0f} GB/s")
        for p in report["prompts"]:
            print(f"  prompt of {p['tokens']}: {p['tokens_per_second']:.0f} tokens/s")
        for g in report["generation"]:
            print(f"  generation at {g['context']}: {g['tokens_per_second']:.1f} tokens/s, {100 * g['fraction']:.0f}%")
        for g in report.get("streams", []):
            print(f"  {g['streams']} sequences together: {g['tokens_per_second']:.0f} tokens/s")
        for r in report.get("fusions", []):
            print(f"  fusion {r['fusion']}: {r['generation'][0]['tokens_per_second']:.1f} tokens/s, "
                  f"{r['launches_per_token']} launches a token")
    for k in results["kernels"]:
        seconds = 17920 * 5120 * k["tokens"] / k["memory_weights_per_second"]
        print(f"  {k['name']}, {k['tokens']} vectors: {1e6 * seconds:.1f} us, {k['memory_bytes_per_second'] / 1e9:.0f} GB/s")
    for c in results["cusparse"] or ():
        print(f"  cuSPARSE at {100 * c['density']:.0f}%: {1e6 * c['seconds']:.1f} us")
    print(f"tests: {passed}; figures in {out}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
