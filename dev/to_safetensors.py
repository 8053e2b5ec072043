#!/usr/bin/env python3
"""Makes a folder's pytorch_model*.bin into safetensors, and counts parameters.

    python3 dev/to_safetensors.py FOLDER        (converting needs torch: dev/requirements.txt; counting needs nothing)

A .bin file is a pickle, and a pickle is a program. It is read with torch's weights_only loader, which builds tensors and plain containers and executes
nothing else; a file that wants more is refused. Each file becomes one .safetensors, written aside and renamed; of tensors that are one in memory (a tied
head) the first name is kept. Prints the number of parameters in the folder's files, attention masks and other buffers left out."""
import glob, json, os, re, struct, sys, zipfile

BUFFER = re.compile(r"(^|\.)(attn|attention)\.(bias|masked_bias)$|rotary_emb\.inv_freq$|position_ids$")

def convert(path):
    import torch
    from safetensors.torch import save_file
    out = os.path.join(os.path.dirname(path), re.sub(r"^pytorch_model", "model", os.path.basename(path))[:-4] + ".safetensors")
    try: state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as e: sys.exit(f"{path}: not a file of plain tensors: {str(e).splitlines()[0]}")
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()): sys.exit(f"{path}: not a table of tensors")
    kept, seen = {}, set()
    for k, v in state.items():
        where = (v.data_ptr(), v.shape, v.stride(), v.dtype)
        if v.numel() > 1 and where in seen: continue
        seen.add(where)
        kept[k] = v.contiguous().clone()
    save_file(kept, out + ".tmp", metadata={"format": "pt"})
    os.replace(out + ".tmp", out)
    return list(kept), os.path.basename(out)

def header(path):
    with open(path, "rb") as f: return {k: v for k, v in json.loads(f.read(struct.unpack("<Q", f.read(8))[0])).items() if k != "__metadata__"}

def main(folder):
    bins, where = sorted(glob.glob(os.path.join(folder, "pytorch_model*.bin"))), {}
    if not glob.glob(os.path.join(folder, "*.safetensors")):
        if not bins: sys.exit(f"{folder}: no safetensors and no pytorch_model*.bin")
        for path in bins:
            names, file = convert(path)
            where.update({n: file for n in names})
        if len(bins) > 1:
            with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f: json.dump({"metadata": {}, "weight_map": where}, f, indent=1)
    count = 0
    for path in glob.glob(os.path.join(folder, "*.safetensors")):
        for name, t in header(path).items():
            n = 1
            for d in t["shape"]: n *= d
            count += 0 if BUFFER.search(name) else n
    return count

if __name__ == "__main__":
    if len(sys.argv) != 2: sys.exit(__doc__)
    print(main(sys.argv[1]))
