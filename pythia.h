// pythia.h: what Pythia (GPT-NeoX) does differently from GPT-2.
//
// There is one model, in gpt2.h. This file is its second parameter table and how its config.json is read and written; the rest of the
// difference are branches in the block: rotary positions on the first rotary_pct of each head, the MLP beside the attention
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

// transformers 5 reads rope_scaling if there is one, else rope_parameters; what that leaves out, under the old names beside them. All that is
// said anywhere must agree with what it takes: version 4 does not read rope_parameters, and neither reads the new names outside of them.
static void neox_rope_read(Config *c, json_t *j, const char *path)
{
    static const char *const places[] = {"rope_scaling", "rope_parameters", "config.json"};
    Config said[4] = {0};
    said[3] = *c;
    for (int i = 0; i < 3; i++) {
        json_t *rope = i == 2 ? j : json_object_get(j, places[i]);
        if (!rope || json_is_null(rope)) continue;
        if (!json_is_object(rope)) die("%s: \"%s\" must be an object", path, places[i]);
        fields_read(&said[i], ROPE, rope, path);
        json_t *kind = i == 2 ? NULL : json_object_get(rope, json_object_get(rope, "rope_type") ? "rope_type" : "type");
        if (i < 2 && json_object_get(rope, "factor") && !kind) die("%s: \"%s\" has a factor and no type: scaled rotary positions are not supported", path, places[i]);
        if (kind && !json_is_string(kind)) die("%s: \"%s\": its type must be a string", path, places[i]);
        if (kind && strcmp(json_string_value(kind), "default")) die("%s: rotary positions of type %s are not supported (default is)", path, shown(json_string_value(kind)));
    }
    json_t *head = json_object_get(j, "head_dim"); // if it is there, transformers counts the dimensions by it
    if (head && !json_is_null(head) && json_integer_value(head) != (json_int_t)(c->C / c->NH)) die("%s: \"head_dim\" must be %zu, or left out", path, c->C / c->NH);
    const Config *first = &said[json_object_size(json_object_get(j, "rope_scaling")) ? 0 : 1];
    double share = first->rotary_pct, base = first->rotary_base;
    if (!(share > 0)) share = c->rotary_pct > 0 ? c->rotary_pct : 0.25;
    if (!(base > 0)) base = c->rotary_base > 0 ? c->rotary_base : 10000;
    for (int i = 0; i < 4; i++) {
        double other = said[i].rotary_pct, other_base = said[i].rotary_base;
        if (other > 0 && other != share) die("%s: rotary_pct (or partial_rotary_factor) is %g, and %g at another place: which is it?", path, share, other);
        if (other_base > 0 && other_base != base) die("%s: rotary_emb_base (or rope_theta) is %g, and %g at another place: which is it?", path, base, other_base);
    }
    c->rotary_pct = share;
    c->rotary_base = base;
}
#endif
