// pythia.h: what Pythia (GPT-NeoX) does differently from GPT-2.
//
// There is one model, in gpt2.h. This file is its second parameter table and how its config.json is read and written; the rest of the
// difference is three ifs in the block: rotary positions on the first rotary_pct of each head, the MLP beside the attention
// (use_parallel_residual), and the activation that hidden_act names.
//
// Easy to get wrong:
//  - The file's query_key_value rows are [NH][3][HS]: q, k and v of head 0, then of head 1. P_QKV has them sorted into [3][NH][HS] at load, weights
//    and biases, and back at save, so that attention finds what it finds in GPT-2.
//  - The rotation is of halves (element j with j + dims/2), not of neighbours, and the number of dimensions is int(head size * share), rounded down.
//  - hidden_act "gelu" is the erf form; GPT-2's gelu_new is the tanh one. They differ by 5e-4.
//  - Transformers renamed the rotary numbers twice: rotary_pct and rotary_emb_base; beside them partial_rotary_factor and rope_theta; from version 5 on
//    both inside rope_parameters (or rope_scaling, of old). All spellings are read and must agree; the first and the last are written.
//
// Left out on purpose: scaled rotary positions (linear, dynamic, yarn: no Pythia has them), attention without biases.
// gpt2.h includes this file for the table, lib/config.h for the rest.
#if defined(VBON_IMPLEMENTATION) && !defined(PYTHIA_TABLE)
#define PYTHIA_TABLE

static const ParamSpec neox_table[] = {
    {"embed_in.weight",        IN_PARAMS(wte),  D_V,  D_C, P_DECAY},
    {"layers.%zu.input_layernorm.weight", IN_BLOCK(ln1w), D_C, 0, P_LAYER | P_NORM},
    {"layers.%zu.input_layernorm.bias", IN_BLOCK(ln1b), D_C, 0, P_LAYER},
    {"layers.%zu.attention.query_key_value.weight", IN_BLOCK(qkvw), D_3C, D_C, P_LAYER | P_DECAY | P_QKV | P_MATMUL},
    {"layers.%zu.attention.query_key_value.bias", IN_BLOCK(qkvb), D_3C, 0, P_LAYER | P_QKV},
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

#endif

// ----------------------------------------------------------------------------
// config.json

#if defined(CONFIG_IMPLEMENTED) && !defined(PYTHIA_CONFIG)
#define PYTHIA_CONFIG

// One number under several names: those that are there must agree.
static double agreed_number(json_t *j, const char *path, const char *const names[2], double fallback)
{
    json_t *places[] = {json_object_get(j, "rope_parameters"), json_object_get(j, "rope_scaling"), j, j};
    double x = 0;
    for (int i = 0; i < 4; i++) {
        const char *name = names[i != 3];
        double y = config_number(places[i], path, name, 0);
        if (x > 0 && y > 0 && x != y) die("%s: %s is %g, and %g under another name: which is it?", path, name, y, x);
        if (y > 0) x = y;
    }
    return x > 0 ? x : fallback;
}

static void neox_config_read(Config *c, json_t *j, const char *path)
{
    c->C = (size_t)config_integer(j, path, "hidden_size", -1);
    c->L = (size_t)config_integer(j, path, "num_hidden_layers", -1);
    c->NH = (size_t)config_integer(j, path, "num_attention_heads", -1);
    c->F = (size_t)config_integer(j, path, "intermediate_size", -1);
    c->max_T = (size_t)config_integer(j, path, "max_position_embeddings", 2048); // the class's default, which cleanrl's nested configurations leave out
    c->eps = config_number(j, path, "layer_norm_eps", 1e-5);
    c->act = config_activation(j, path, "hidden_act", ACT_GELU_ERF);
    c->parallel = config_bool(j, path, "use_parallel_residual", true);
    if (!config_bool(j, path, "attention_bias", true)) die("%s: attention_bias false is not supported: this model computes something else", path);
    static const char *const ropes[] = {"rope_parameters", "rope_scaling"};
    for (int i = 0; i < 2; i++) {
        json_t *rope = json_object_get(j, ropes[i]);
        const char *kind = json_string_value(json_object_get(rope, json_object_get(rope, "rope_type") ? "rope_type" : "type"));
        if (rope && !json_is_null(rope) && !json_is_object(rope)) die("%s: \"%s\" must be an object", path, ropes[i]);
        if (json_object_get(rope, "factor") && !kind) die("%s: \"%s\" has a factor and no type: scaled rotary positions are not supported", path, ropes[i]);
        if (kind && strcmp(kind, "default")) die("%s: rotary positions of type %s are not supported (default is)", path, shown(kind));
    }
    static const char *const share[2] = {"rotary_pct", "partial_rotary_factor"}, *const base[2] = {"rotary_emb_base", "rope_theta"};
    c->rotary_pct = agreed_number(j, path, share, 0.25);
    c->rotary_base = agreed_number(j, path, base, 10000);
}

static void neox_config_write(const Config *c, json_t *j)
{
    json_t *own = json_make("{s:i, s:i, s:i, s:i, s:i, s:f, s:s, s:b, s:b, s:f, s:f, s:f, s:f, s:{s:s, s:f, s:f}}", "hidden_size", (int)c->C, "num_hidden_layers", (int)c->L,
        "num_attention_heads", (int)c->NH, "intermediate_size", (int)c->F, "max_position_embeddings", (int)c->max_T, "layer_norm_eps", c->eps,
        "hidden_act", activations[c->act].name, "use_parallel_residual", (int)c->parallel, "attention_bias", 1, "attention_dropout", 0.0, "hidden_dropout", 0.0,
        "rotary_pct", c->rotary_pct, "rotary_emb_base", c->rotary_base,
        "rope_parameters", "rope_type", "default", "rope_theta", c->rotary_base, "partial_rotary_factor", c->rotary_pct);
    json_object_update(j, own);
    json_decref(own);
}
#endif
