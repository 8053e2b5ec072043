// pythia.h: what Pythia (GPT-NeoX, https://arxiv.org/abs/2304.01373) does differently from GPT-2.
//
// There is one model, in gpt2.h. Here are the tables and functions of Pythia's row (lib/config.h includes this file and
// has the row): the names of its tensors, the order of its queries, keys and values, its rotary positions, and how its
// config.json is read and written. Two things are switches of the one block, in Config: the MLP beside the attention
// instead of after it (use_parallel_residual), and the activation that hidden_act names. A model of another family
// begins as a copy of this file, and a row.
//
// Easy to get wrong:
//  - The file's query_key_value rows are [NH][3][HS]: q, k and v of head 0, then of head 1. neox_place has them sorted
//    into [3][NH][HS] at load, weights and biases, and back at save, so that attention finds what it finds in GPT-2.
//  - The rotation is of halves (element j with j + dims/2), not of neighbours, and the number of dimensions is
//    int(head size * share), rounded down.
//  - hidden_act "gelu" is the erf form; GPT-2's gelu_new is the tanh one. They differ by 5e-4 at most.
//  - Transformers renamed the rotary numbers twice: first rotary_pct and rotary_emb_base; then partial_rotary_factor
//    and rope_theta beside them; from version 5 on those two inside rope_parameters (once called rope_scaling). All
//    spellings are read and must agree; the first and the last are written.
//
// Left out on purpose: scaled rotary positions (linear, dynamic, yarn: no Pythia has them), attention without biases.
#pragma once

static const ParamSpec neox_params[] = {
    {"embed_in.weight",        IN_PARAMS(wte),  D_V,  D_C, P_DECAY},
    {"layers.%zu.input_layernorm.weight", IN_BLOCK(ln1w), D_C, 0, P_LAYER | P_NORM},
    {"layers.%zu.input_layernorm.bias", IN_BLOCK(ln1b), D_C, 0, P_LAYER},
    {"layers.%zu.attention.query_key_value.weight", IN_BLOCK(qkvw), D_3C, D_C, P_LAYER | P_DECAY | P_PLACED | P_MATMUL},
    {"layers.%zu.attention.query_key_value.bias", IN_BLOCK(qkvb), D_3C, 0, P_LAYER | P_PLACED},
    {"layers.%zu.attention.dense.weight", IN_BLOCK(projw), D_C, D_C, P_LAYER | P_DECAY | P_MATMUL | P_PROJ},
    {"layers.%zu.attention.dense.bias", IN_BLOCK(projb), D_C, 0, P_LAYER},
    {"layers.%zu.post_attention_layernorm.weight", IN_BLOCK(ln2w), D_C, 0, P_LAYER | P_NORM},
    {"layers.%zu.post_attention_layernorm.bias", IN_BLOCK(ln2b), D_C, 0, P_LAYER},
    {"layers.%zu.mlp.dense_h_to_4h.weight", IN_BLOCK(fcw), D_F, D_C, P_LAYER | P_DECAY | P_MATMUL},
    {"layers.%zu.mlp.dense_h_to_4h.bias", IN_BLOCK(fcb), D_F, 0, P_LAYER},
    {"layers.%zu.mlp.dense_4h_to_h.weight", IN_BLOCK(fc2w), D_C, D_F, P_LAYER | P_DECAY | P_MATMUL | P_PROJ},
    {"layers.%zu.mlp.dense_4h_to_h.bias", IN_BLOCK(fc2b), D_C, 0, P_LAYER},
    {"final_layer_norm.weight", IN_PARAMS(lnfw), D_C, 0,   P_NORM},
    {"final_layer_norm.bias",  IN_PARAMS(lnfb), D_C,  0,   0},
    {"embed_out.weight",       IN_PARAMS(head), D_V,  D_C, P_DECAY | P_MATMUL | P_HEAD},
    {0},
};
static const char *const neox_buffers[] = {".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq", NULL};

// ----------------------------------------------------------------------------
// queries, keys and values; rotary positions

// Row `row` of the file belongs to q, k or v (part 0, 1 or 2) of one head. What follows it stays together to the end of
// that.
static size_t neox_place(const Config *c, size_t row, size_t *at)
{
    size_t HS = c->C / c->NH, head = row / (3 * HS), part = row / HS % 3;
    *at = part * c->C + head * HS + row % HS;
    return HS - row % HS;
}

// How many elements of each head turn, as in transformers: int(head size * share). 0: there are no rotary positions.
static size_t rotary_dims(const Config *c) { return (size_t)((double)(c->C / c->NH) * c->rotary_pct); }

static void neox_turn(const Ops *o, const Config *c, Buf qkv, Buf pos, size_t N, bool back)
{
    o->rotary(qkv, pos, N, c->NH, c->C / c->NH, rotary_dims(c), c->rotary_base, back);
}

// ----------------------------------------------------------------------------
// config.json

static const ConfigField neox_fields[] = {
    {"vocab_size", NULL, F_SIZE, KEPT(V), 1, 1 << 28, NAN},
    {"max_position_embeddings", NULL, F_SIZE, KEPT(max_T), 1, 1 << 28, 2048},
    {"hidden_size", NULL, F_SIZE, KEPT(C), 1, 1 << 20, NAN},
    {"num_hidden_layers", NULL, F_SIZE, KEPT(L), 1, 1000, NAN},
    {"num_attention_heads", NULL, F_SIZE, KEPT(NH), 1, 1 << 20, NAN},
    {"intermediate_size", NULL, F_SIZE, KEPT(F), 1, 1 << 24, NAN},
    {"hidden_act", NULL, F_ACT, KEPT(act), 0, 0, ACT_GELU_ERF},
    {"layer_norm_eps", NULL, F_NUMBER, KEPT(eps), 1e-30, 1, 1e-5},
    {"rotary_pct", NULL, F_NUMBER, KEPT(rotary_pct), 1e-3, 1, 0}, // 0: not said here
    {"rotary_emb_base", NULL, F_NUMBER, KEPT(rotary_base), 1, 1e12, 0},
    {"attention_dropout", NULL, F_NUMBER, CHECKED, 0, 1, 0},
    {"hidden_dropout", NULL, F_NUMBER, CHECKED, 0, 1, 0},
    {"tie_word_embeddings", NULL, F_FLAG, KEPT(tied), 0, 1, 0},
    {"use_parallel_residual", NULL, F_FLAG, KEPT(parallel), 0, 1, 1},
    {"attention_bias", NULL, F_FLAG, CHECKED, 1, 1, 1},
    {0},
};
static const ConfigField rope_fields[] = { // the same two numbers as rope_parameters and rope_scaling call them
    {"partial_rotary_factor", NULL, F_NUMBER, KEPT(rotary_pct), 1e-3, 1, 0},
    {"rope_theta", NULL, F_NUMBER, KEPT(rotary_base), 1, 1e12, 0},
    {0},
};

// Transformers 5 reads rope_scaling if there is one, else rope_parameters; and what that leaves out, under the old
// names beside it. Whatever is said at another place must agree with that, for other readers look there: version 4 does
// not know rope_parameters, and neither version reads the new names outside of it.
static void neox_read(Config *c, json_t *j, const char *path)
{
    static const char *const places[] = {"rope_scaling", "rope_parameters", "config.json"};
    Config said[4] = {0};
    said[3] = *c;
    for (int i = 0; i < 3; i++) {
        json_t *rope = i == 2 ? j : json_object_get(j, places[i]);
        if (!rope || json_is_null(rope)) continue;
        if (!json_is_object(rope)) die("%s: \"%s\" must be an object", path, places[i]);
        fields_read(&said[i], rope_fields, rope, path);
        json_t *kind = i == 2 ? NULL : json_object_get(rope, json_object_get(rope, "rope_type") ? "rope_type" : "type");
        if (i < 2 && json_object_get(rope, "factor") && !kind)
            die("%s: \"%s\" has a factor and no type: scaled rotary positions are not supported", path, places[i]);
        if (kind && !json_is_string(kind)) die("%s: \"%s\": its type must be a string", path, places[i]);
        if (kind && strcmp(json_string_value(kind), "default"))
            die("%s: rotary positions of type %s are not supported (default is)", path, shown(json_string_value(kind)));
    }
    json_t *head = json_object_get(j, "head_dim"); // if it is there, transformers counts the dimensions by it
    if (head && !json_is_null(head) && json_integer_value(head) != (json_int_t)(c->C / c->NH))
        die("%s: \"head_dim\" must be %zu, or left out", path, c->C / c->NH);
    const Config *first = &said[json_object_size(json_object_get(j, "rope_scaling")) ? 0 : 1];
    double share = first->rotary_pct, base = first->rotary_base;
    if (!(share > 0)) share = c->rotary_pct > 0 ? c->rotary_pct : 0.25;
    if (!(base > 0)) base = c->rotary_base > 0 ? c->rotary_base : 10000;
    for (int i = 0; i < 4; i++) {
        double other = said[i].rotary_pct, other_base = said[i].rotary_base;
        if (other > 0 && other != share)
            die("%s: rotary_pct (or partial_rotary_factor) is %g, and %g at another place: which is it?", path, share,
                other);
        if (other_base > 0 && other_base != base)
            die("%s: rotary_emb_base (or rope_theta) is %g, and %g at another place: which is it?", path, base,
                other_base);
    }
    c->rotary_pct = share;
    c->rotary_base = base;
    size_t dims = rotary_dims(c), HS = c->C / c->NH;
    if (!dims || dims % 2)
        die("%s: %zu rotary dimensions of a head of %zu: must be even, and at least 2", path, dims, HS);
}

static void neox_write(const Config *c, json_t *j)
{
    json_object_set_new(j, "rope_parameters", json_make("{s:s, s:f, s:f}", "rope_type", "default",
        "rope_theta", c->rotary_base, "partial_rotary_factor", c->rotary_pct));
}

static void neox_fresh(Config *c) // as the Pythias are
{
    c->act = ACT_GELU_ERF;
    c->parallel = true;
    c->rotary_pct = 0.25;
    c->rotary_base = 10000;
    if (c->C / c->NH % 8)
        usage("--width %zu over --heads %zu: a gpt_neox turns a quarter of each head in pairs, so heads must be "
              "multiples of 8", c->C, c->NH);
}
