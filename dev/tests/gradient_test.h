// gradient_test.h: finite differences in double. An op's loss is a fixed random combination of its outputs; the
// relative error is to the tensor's largest gradient.

typedef double (*Loss)(void *context);

static void check_gradient(const char *what, Buf x, Buf dx, Loss loss, void *context, double tol)
{
    double largest = 0, worst = 0;
    size_t step = x.n > 60 ? x.n / 60 : 1, where = 0;
    for (size_t i = 0; i < x.n; i++) largest = fmax(largest, fabs((double)R_(dx)[i]));
    for (size_t i = 0; i < x.n; i += step) {
        real keep = R_(x)[i];
        double h = 1e-3, d[2];
        for (int k = 0; k < 2; k++) { // central differences at h and h/2, extrapolated: error O(h^4)
            R_(x)[i] = keep + (real)h; double up = loss(context);
            R_(x)[i] = keep - (real)h; double down = loss(context);
            d[k] = (up - down) / (2 * h);
            h /= 2;
        }
        R_(x)[i] = keep;
        double numeric = (4 * d[1] - d[0]) / 3, err = fabs(numeric - (double)R_(dx)[i]);
        if (worse(worst, err) != worst) { worst = err; where = i; } // NaN differs from itself
    }
    CHECK(worst <= tol * fmax(largest, 1e-30), "%s: gradient %zu is off by %g of the largest, %g", what, where,
        worst / largest, largest);
    CHECK(largest > 0, "%s: no gradient", what);
}

static double weighted(Buf out, Buf weight)
{
    double s = 0;
    for (size_t i = 0; i < weight.n; i++) s += (double)R_(out)[i] * (double)R_(weight)[i];
    return s;
}
static Buf zeros(size_t n) { Buf b = new_buf(n); cpu_fill(b, 0); return b; }

typedef struct { Buf out, dout, a, b, c, d, e, f, g; size_t N, C, OC; int mode; double T; } OpCase;
static double op_loss(void *context)
{
    OpCase *k = context;
    switch (k->mode) {
    case 0: cpu_matmul_forward(k->out, k->a, k->b, k->c, k->N, k->C, k->OC); break;
    case 1: cpu_layernorm_forward(k->out, k->d, k->e, k->a, k->b, k->c, k->N, k->C, 1e-5); break;
    case 2: cpu_activation_forward(k->out, k->a, (Activation)k->OC, k->a.n); break;
    case 3: case 4: cpu_attention_forward(k->out, k->e, k->a, k->d, k->d.n - 1, k->N, k->C, k->OC, k->mode == 3); break;
    case 5: cpu_logprob_forward(k->out, (Buf){0}, (Buf){0}, k->a, k->b, k->d, k->T, k->N, k->C, k->OC); break;
    case 7: cpu_copy(k->out, k->a); cpu_rotary(k->out, k->e, k->N, k->C, k->OC, 4, 100, false); break;
    case 6: cpu_embed_forward(k->out, k->d, k->e, k->a, k->b, k->N, k->C); break;
    }
    return weighted(k->out, k->dout);
}

static void test_op_gradients(void)
{
    const double tol = 1e-7;
    const size_t shapes[][3] = {{1, 1, 1}, {1, 5, 3}, {7, 3, 11}, {33, 24, 17}, {130, 16, 20}};
    for (size_t s = 0; s < 5; s++) {
        size_t N = shapes[s][0], C = shapes[s][1], OC = shapes[s][2];
        OpCase k = {.out = new_buf(N * OC), .dout = new_buf(N * OC), .a = new_buf(N * C), .b = new_buf(OC * C),
            .c = new_buf(OC), .N = N, .C = C, .OC = OC};
        Buf dx = new_buf(N * C), dw = zeros(OC * C), db = zeros(OC);
        cpu_matmul_backward(dx, dw, db, k.dout, k.a, k.b, N, C, OC);
        check_gradient("matmul input", k.a, dx, op_loss, &k, tol);
        check_gradient("matmul weight", k.b, dw, op_loss, &k, tol);
        check_gradient("matmul bias", k.c, db, op_loss, &k, tol);
        // accumulates, and a none is left alone
        cpu_matmul_backward((Buf){0}, dw, (Buf){0}, k.dout, k.a, k.b, N, C, OC);
        for (size_t i = 0; i < dw.n; i++) R_(dw)[i] /= 2;
        check_gradient("matmul weight, accumulated", k.b, dw, op_loss, &k, tol);
        if (C > 1) {
            k = (OpCase){.mode = 1, .out = new_buf(N * C), .dout = new_buf(N * C), .a = new_buf(N * C), .b = new_buf(C),
                .c = new_buf(C), .d = new_buf(N), .e = new_buf(N), .N = N, .C = C};
            op_loss(&k);
            Buf dres = zeros(N * C), dlw = zeros(C), dlb = zeros(C);
            cpu_layernorm_backward(dres, dlw, dlb, k.dout, k.a, k.b, k.d, k.e, N, C);
            check_gradient("layernorm input", k.a, dres, op_loss, &k, tol);
            check_gradient("layernorm weight", k.b, dlw, op_loss, &k, tol);
            check_gradient("layernorm bias", k.c, dlb, op_loss, &k, tol);
        }
    }
    for (int act = ACT_GELU_TANH; act <= ACT_RELU; act++) {
        OpCase k = {.mode = 2, .out = new_buf(50), .dout = new_buf(50), .a = new_buf(50), .OC = (size_t)act};
        // away from ReLU's kink
        for (size_t i = 0; i < 50; i++) R_(k.a)[i] = R_(k.a)[i] * 4 + (R_(k.a)[i] > 0 ? (real)0.1 : (real)-0.1);
        Buf dx = new_buf(50);
        cpu_activation_backward(dx, k.dout, k.a, (Activation)act, 50);
        check_gradient("activation", k.a, dx, op_loss, &k, tol);
    }
    for (int causal = 0; causal < 2; causal++)
        for (int v = 0; v < 3; v++) {
            const int starts[3][5] = {{0, 1, 3, 8, 8 + 5}, {0, 70, 71, 200, 203}, {0, 1, 2, 3, 4}};
            size_t NH = v == 1 ? 2 : 3, HS = v == 1 ? 5 : 4, N = (size_t)starts[v][4];
            OpCase k = {.mode = causal ? 3 : 4, .out = new_buf(N * NH * HS), .dout = new_buf(N * NH * HS),
                .a = new_buf(3 * N * NH * HS), .d = new_index(5, starts[v]), .e = new_buf(N * NH), .N = N, .C = NH,
                .OC = HS};
            op_loss(&k);
            Buf dqkv = new_buf(3 * N * NH * HS);
            cpu_attention_backward(dqkv, k.dout, k.out, k.e, k.a, k.d, 4, N, NH, HS, causal);
            check_gradient("attention", k.a, dqkv, op_loss, &k, tol);
        }
    {
        int target[9] = {0, 6, 3, 3, 1, 5, 2, 2, 6};
        OpCase k = {.mode = 5, .out = new_buf(9), .dout = new_buf(9), .a = new_buf(9 * 4), .b = new_buf(7 * 4),
            .d = new_index(9, target), .N = 9, .C = 4, .OC = 7, .T = 0.7};
        Buf dx = new_buf(9 * 4), dw = zeros(7 * 4), logp = new_buf(9);
        op_loss(&k);
        cpu_logprob_backward(dx, dw, logp, k.dout, (Buf){0}, k.a, k.b, k.d, 0.7, 9, 4, 7);
        for (size_t i = 0; i < 9; i++) CHECK_NEAR(R_(logp)[i], R_(k.out)[i], 1e-14, "backward's log-probability");
        check_gradient("head input", k.a, dx, op_loss, &k, tol);
        check_gradient("head weight", k.b, dw, op_loss, &k, tol);
        // the same from the softmax that the forward kept
        Buf kept = new_buf(9 * 64), dx2 = new_buf(9 * 4), dw2 = zeros(7 * 4);
        cpu_logprob_forward(logp, (Buf){0}, kept, k.a, k.b, k.d, 0.7, 9, 4, 7);
        cpu_logprob_backward(dx2, dw2, (Buf){0}, k.dout, kept, k.a, k.b, k.d, 0.7, 9, 4, 7);
        check_gradient("head input, softmax kept", k.a, dx2, op_loss, &k, tol);
        check_gradient("head weight, softmax kept", k.b, dw2, op_loss, &k, tol);
    }
    {
        int tokens[6] = {2, 0, 2, 4, 1, 2}, pos[6] = {0, 1, 2, 0, 1, 0};
        OpCase k = {.mode = 6, .out = new_buf(6 * 20), .dout = new_buf(6 * 20), .a = new_buf(5 * 20),
            .b = new_buf(3 * 20), .d = new_index(6, tokens), .e = new_index(6, pos), .N = 6, .C = 20};
        Buf dwte = zeros(5 * 20), dwpe = zeros(3 * 20);
        cpu_embed_backward(dwte, dwpe, k.dout, k.d, k.e, 6, 20);
        check_gradient("token embedding", k.a, dwte, op_loss, &k, tol);
        check_gradient("position embedding", k.b, dwpe, op_loss, &k, tol);
    }
    {
        int pos[5] = {0, 1, 7, 2, 1000};
        OpCase k = {.mode = 7, .out = new_buf(5 * 3 * 12), .dout = new_buf(5 * 3 * 12), .a = new_buf(5 * 3 * 12),
            .e = new_index(5, pos), .N = 5, .C = 2, .OC = 6};
        Buf dqkv = zeros(5 * 3 * 12), there = zeros(5 * 3 * 12);
        cpu_copy(dqkv, k.dout);
        cpu_rotary(dqkv, k.e, 5, 2, 6, 4, 100, true);
        check_gradient("rotary", k.a, dqkv, op_loss, &k, tol);
        cpu_copy(there, k.a);
        cpu_rotary(there, k.e, 5, 2, 6, 4, 100, false);
        for (size_t i = 0; i < 5 * 3 * 12; i++)
            CHECK((R_(there)[i] != R_(k.a)[i]) == (i >= 36 && i % 36 < 24 && i % 6 < 4),
                "rotary: element %zu of token %zu turns or not", i % 36, i / 36);
    }
    int index[3] = {4, 0, 2};
    Buf x = new_buf(5 * 3), g = new_buf(9), back = zeros(15), ix = new_index(3, index);
    cpu_gather_rows(g, x, ix, 3, 3);
    cpu_scatter_rows(back, g, ix, 3, 3);
    for (size_t i = 0; i < 15; i++)
        CHECK(R_(back)[i] == (i / 3 == 1 || i / 3 == 3 ? 0 : R_(x)[i]), "gather and scatter");
}

// ----------------------------------------------------------------------------
// whole models

static Config tiny_config(size_t V, bool tied, bool scalar)
{
    return (Config){.arch = &architectures[ARCH_GPT2], .L = 3, .NH = 2, .C = 8, .F = 20, .V = V, .max_T = 12,
        .act = ACT_GELU_TANH, .tied = tied, .scalar_head = scalar, .eps = 1e-5, .init_std = 0.3, .eos = 0};
}

// The same size in each architecture: GPT-2, Pythia, Pythia with sequential residual
enum { TINY_GPT2, TINY_PYTHIA, TINY_SEQUENTIAL, TINIES };
static Config tiny_of(int which, size_t V, bool tied, bool scalar)
{
    Config c = tiny_config(V, tied, scalar);
    if (which == TINY_GPT2) return c;
    c.arch = &architectures[ARCH_NEOX];
    c.act = ACT_GELU_ERF;
    c.parallel = which == TINY_PYTHIA; c.rotary_pct = 0.5; c.rotary_base = 50; // 2 of 4 dimensions turn
    return c;
}

static Corpus tiny_corpus(LossKind kind)
{
    Corpus c = {.kind = kind, .n_rows = 4};
    const int len[4] = {2, 5, 12, 3};
    for (size_t i = 0, p = 0; i < 4; i++) {
        arrput(c.rows, ((Row){p, len[i], kind == LOSS_LM ? 1 : 1, (float)(i % 2)}));
        for (int t = 0; t < len[i]; t++, p++) arrput(c.tokens, (int)(random_bits(7, 1, i, (uint64_t)t, 0) % 13));
    }
    return c;
}

typedef struct { Pass *p; const Corpus *c; } SupervisedCase;
static const size_t four_rows[4] = {0, 1, 2, 3};
static double supervised_loss(void *context)
{
    SupervisedCase *k = context;
    return supervised_batch(k->p, k->c, four_rows, 4, 1, false, NULL);
}

// A PPO-shaped loss through a frozen trunk, policy head and value head: weights on
// log-probabilities and values at the responses
typedef struct { Model *m; Pass *p; ValueHead *v; Sequence *q; Buf wl, wv; } PolicyCase;
static double policy_loss(void *context)
{
    PolicyCase *k = context;
    const Pass *p = k->p;
    pass_forward(k->p, &k->m->p, k->q, 2);
    cpu_logprob_forward(p->logp, (Buf){0}, (Buf){0}, p->hidden, head_weight(&k->m->p), p->target, 0.8, p->R,
        k->m->cfg.C, k->m->cfg.V);
    value_forward(k->v, p);
    return weighted(p->logp, k->wl) + weighted(k->v->value, k->wv);
}

typedef struct { Model *m; Pass *p; const OfflineLoss *o; const Comparisons *c; } OfflineCase;
static double offline_case_loss(void *context) // the mean over both comparisons, from log-probabilities alone
{
    OfflineCase *k = context;
    double lp[16], sum[4] = {0}, loss = 0, dw, dl;
    sequence_logps(k->p, &k->m->p, k->c->sequences, 4, 0.8, lp, NULL);
    for (size_t i = 0, at = 0; i < 4; i++) for (size_t t = 0; t < k->c->responses[i].n; t++) sum[i] += lp[at++];
    for (int i = 0; i < 2; i++) {
        const Comparison *x = &k->c->list[i];
        loss += offline_loss(k->o, sum[x->w], sum[x->l], k->c->ref[x->w], k->c->ref[x->l], &dw, &dl) / 2;
    }
    return loss;
}

// Two comparisons of four responses to one prompt, of vocabularies of 4 tokens and more
static Comparisons tiny_comparisons(void)
{
    static int prompt_ids[2] = {3, 2}, ids[4][4] = {{2, 3, 1, 0}, {1, 1}, {3}, {2, 2, 0}};
    static const size_t lengths[4] = {4, 2, 1, 3};
    static Prompt p = {.ids = prompt_ids, .n = 2};
    Comparisons x = {0};
    for (int i = 0; i < 4; i++) arrput(x.responses, ((Response){.ids = ids[i], .n = lengths[i]}));
    for (int i = 0; i < 4; i++) {
        arrput(x.sequences, sequence_of(&p, &x.responses[i]));
        arrput(x.ref, -2 - 1.5 * i);
    }
    arrput(x.list, ((Comparison){0, 1})); arrput(x.list, ((Comparison){3, 2}));
    return x;
}
static void tiny_comparisons_free(Comparisons *x)
{
    arrfree(x->responses); arrfree(x->sequences); arrfree(x->ref); arrfree(x->list);
}

static void check_parameters(Model *m, const char *what, Loss loss, void *context)
{
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        Buf g = *param_field(&m->g, q);
        CHECK((g.p != NULL) == (q->offset >= m->first), "%s %s: trains or not", what, q->name);
        if (!g.p) continue;
        char label[160];
        snprintf(label, sizeof label, "%s: %s", what, q->name);
        // a constant in both scores: their difference does not see it
        if (!strcmp(what, "pairs") && q->field == IN_PARAMS(lnfb) && !(q->flags & P_LAYER)) {
            for (size_t k = 0; k < q->n; k++)
                CHECK(fabs((double)R_(g)[k]) < 1e-14, "%s: gradient %g, not 0", label, (double)R_(g)[k]);
            continue;
        }
        check_gradient(label, *param_field(&m->p, q), g, loss, context, 1e-7);
    }
}

// A random model whose biases and norms are not the 0 and 1 they begin as, which would hide a wrong gradient
static void random_everywhere(Model *m, uint64_t seed)
{
    model_random(m, seed);
    for (size_t i = 0; i < m->n_list; i++)
        for (size_t j = 0; j < m->list[i].n && !m->list[i].cols; j++)
            R_(*param_field(&m->p, &m->list[i]))[j] += (real)(rnd() * 0.3);
}

static void test_model_gradients(void)
{
    // tied LM, untied LM, label reward, pair reward at every position, tied LM with only the top block, pair reward at
    // the ends; each architecture
    for (int i = 0; i < 6 * TINIES; i++) {
        int v = i % 6;
        LossKind kind = v == 2 ? LOSS_LABEL : v == 3 || v == 5 ? LOSS_PAIR : LOSS_LM;
        Config c = tiny_of(i / 6, 13, v != 1, kind != LOSS_LM);
        Model m;
        Pass p;
        Corpus corpus = tiny_corpus(kind);
        for (size_t j = 0; v == 5 && j < 4; j++) corpus.rows[j].from = corpus.rows[j].len - 1;
        model_create(&m, ops_cpu(), &c, v == 4 ? 1 : TRAIN_ALL, false, false);
        random_everywhere(&m, 3 + (uint64_t)v);
        pass_create(&p, &m, 24, true);
        SupervisedCase k = {&p, &corpus};
        model_zero_grad(&m);
        supervised_batch(&p, &corpus, four_rows, 4, 1, true, NULL);
        static const char *const names[] = {"tied", "untied", "labels", "pairs", "top block", "pairs"};
        check_parameters(&m, names[v], supervised_loss, &k);
        pass_free(&p); model_free(&m); corpus_free(&corpus);
    }
    // scores 1, 2 over 0: the chosen response is longer, and 0 stands for what the other lacks
    real longer[2] = {1, 2}, shorter[1] = {0};
    double loss = pair_loss(longer, 2, shorter, 1, 1), g1 = 1 / (1 + exp(1)), g2 = 1 / (1 + exp(2));
    CHECK(fabs(loss - (log1p(exp(-1)) + log1p(exp(-2))) / 2) < 1e-12, "the loss of a pair is %g", loss);
    CHECK(fabs((double)longer[0] + g1 / 2) + fabs((double)longer[1] + g2 / 2) < 1e-6 &&
        fabs((double)shorter[0] - (g1 + g2) / 2) < 1e-6, "a pair's gradients are %g, %g and %g", (double)longer[0],
        (double)longer[1], (double)shorter[0]);
    for (long v = 0; v < 4 * TINIES; v++) { // 3 blocks: 0 trains the norm and head only
        long layers = v % 4;
        Config c = tiny_of((int)(v / 4), 13, false, false);
        Model m;
        Pass s = {0};
        ValueHead head = {0};
        Arena work = {.name = "work", .o = ops_cpu()};
        model_create(&m, ops_cpu(), &c, layers, true, false);
        random_everywhere(&m, 11);
        for (size_t i = 0; i < m.n_list; i++)
            if (m.list[i].flags & P_VALUE)
                for (size_t j = 0; j < m.list[i].n; j++) R_(*param_field(&m.p, &m.list[i]))[j] = (real)(rnd() * 0.5);
        // far from ReLU's kink on both sides
        for (size_t j = 0; j < m.p.v1b.n; j++) R_(m.p.v1b)[j] = j % 2 ? (real)4 : (real)-4;
        for (int placed = 0; placed < 2; placed++) {
            if (placed) arena_place(&work);
            pass_carve(&s, &m, &work, 32, true);
            value_carve(&head, &m, &work, 32);
        }
        int p1[2] = {3, 4}, p2[3] = {1, 5, 2}, r1[4] = {7, 8, 1, 0}, r2[2] = {12, 9};
        Prompt p[2] = {{.ids = p1, .n = 2}, {.ids = p2, .n = 3}};
        Response r[2] = {{.ids = r1, .n = 4}, {.ids = r2, .n = 2}};
        Sequence q[2] = {sequence_of(&p[0], &r[0]), sequence_of(&p[1], &r[1])};
        PolicyCase k = {&m, &s, &head, q, new_buf(6), new_buf(6)};
        policy_loss(&k);
        model_zero_grad(&m);
        cpu_copy(slice(s.dlogp, 0, 6), k.wl); cpu_copy(slice(head.dvalue, 0, 6), k.wv);
        cpu_logprob_backward(s.dhidden, head_weight(&m.g), (Buf){0}, s.dlogp, (Buf){0}, s.hidden, head_weight(&m.p),
            s.target, 0.8, 6, c.C, 13);
        value_backward(&head, &s);
        pass_backward(&s);
        check_parameters(&m, "policy and value", policy_loss, &k);
        pass_free(&s); arena_release(&work); model_free(&m);
    }
    // each offline loss; every other one with only the top block, every third with a tied head
    for (int v = 0; v < 4 * TINIES; v++) {
        Config c = tiny_of(v / 4, 13, v % 3 == 0, false);
        Model m;
        Pass s;
        OfflineLoss o = {.kind = (OfflineKind)(v % 4), .beta = 0.3, .alpha = 0.2, .N = 3};
        Comparisons x = tiny_comparisons();
        model_create(&m, ops_cpu(), &c, (v + v / 4) % 2 ? 1 : TRAIN_ALL, false, false);
        random_everywhere(&m, 12);
        pass_create(&s, &m, 12, true); // too small for both comparisons at once
        const size_t both[2] = {1, 0};
        double sums[OFFLINE_SUMS] = {0};
        OfflineCase k = {&m, &s, &o, &x};
        model_zero_grad(&m);
        offline_batch(&s, &o, &x, both, 2, 2, 0.8, sums);
        CHECK_NEAR(sums[OFFLINE_LOSS] / 2, offline_case_loss(&k), 1e-12, "the batch's loss");
        check_parameters(&m, "offline", offline_case_loss, &k);
        tiny_comparisons_free(&x);
        pass_free(&s); model_free(&m);
    }
}

// ----------------------------------------------------------------------------
// BOND and J-BOND: the gradient of a minibatch, both halves, from a rollout of the shipped steps

typedef struct { Ppo *p; Pass pass; const size_t *rows; size_t n; } BondCase;
static double bond_case_loss(void *context) // from log-probabilities alone; ratios are not clipped so near to 1
{
    BondCase *k = context;
    const Ppo *p = k->p;
    const Rollout *r = &p->rollout;
    Sequence q[6];
    double loss = 0, tokens = 0, lp[24], *next = lp;
    for (size_t i = 0; i < k->n; i++) {
        q[2 * i] = sequence_of(&p->prompts[r->y[k->rows[i]].prompt], &r->y[k->rows[i]]);
        q[2 * i + 1] = p->anchor.best[k->rows[i]];
    }
    sequence_logps(&k->pass, &p->policy->p, q, 2 * k->n, p->opt.temperature, lp, NULL);
    for (size_t i = 0; i < k->n; i++) {
        for (size_t j = r->at[k->rows[i]]; j < r->at[k->rows[i] + 1]; j++, tokens++)
            loss -= r->advantage[j] * exp(*next++ - r->old_logp[j]);
        for (size_t t = 0; t < sequence_states(&q[2 * i + 1]); t++) loss -= p->opt.objective.forward * *next++;
    }
    return loss / tokens;
}

static void letters_reward(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes)
{
    (void)context; (void)prompts; (void)prefixes;
    for (size_t i = 0; i < n; i++) {
        r[i].reward = 0;
        for (size_t t = 0; t < r[i].n; t++) r[i].reward += (double)(r[i].ids[t] % 5);
    }
}

// ----------------------------------------------------------------------------
// the all-actions gradient: of a minibatch, from a rollout of the shipped steps

static void letters_scores(void *context, const Prompt *prompts, const Response *r, size_t n, const int *token,
                           size_t K, double *score)
{
    (void)context; (void)prompts;
    for (size_t i = 0; i < n; i++)
        for (size_t t = 0; t < r[i].n; t++)
            for (size_t k = 0; k < K; k++, score++, token++) {
                *score = (double)(*token % 5);
                for (size_t s = 0; s < t; s++) *score += (double)(r[i].ids[s] % 5);
            }
}

static void letters_prefixes(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes)
{
    letters_reward(context, prompts, r, n, prefixes);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        r[i].prefix = (double *)xrealloc(r[i].prefix, r[i].n * sizeof(double));
        for (size_t t = 0; t < r[i].n; t++) { r[i].prefix[t] = sum; sum += (double)(r[i].ids[t] % 5); }
    }
}

typedef struct { Ppo *p; Pass pass; const size_t *rows; size_t n; double *b; bool fix; } CandidateCase;
// From log-probabilities of sequences that end in the sampled token, and in each candidate. b: the minibatch's, which
// are constants; fix: find them, under the weights as they are.
static double candidate_loss(void *context)
{
    enum { K = 3, T = 3 };
    CandidateCase *k = context;
    const Ppo *p = k->p;
    const Rollout *r = &p->rollout;
    const Candidates *c = &p->candidates;
    double loss = 0, tokens = 0, kappa = p->opt.objective.kappa / c->unit, *b = k->b, lp[K + 1];
    for (size_t i = 0; i < k->n; i++)
        for (size_t a = r->at[k->rows[i]], t = 0; a < r->at[k->rows[i] + 1]; a++, t++, tokens++, b++) {
            const Response *y = &r->y[k->rows[i]];
            Sequence q[K + 1];
            int ids[K + 1][T];
            double mass = 0, sum = 0;
            for (size_t j = 0; j <= K; j++) {
                Response part = {.ids = ids[j], .n = t + 1};
                memcpy(ids[j], y->ids, (t + 1) * sizeof(int));
                if (j) ids[j][t] = c->token[a * K + j - 1];
                q[j] = sequence_of(&p->prompts[y->prompt], &part);
                q[j].from += t;
            }
            sequence_logps(&k->pass, &p->policy->p, q, K + 1, p->opt.temperature, lp, NULL);
            loss -= r->advantage[a] * exp(lp[0] - r->old_logp[a]);
            for (size_t j = 0; j < K; j++) {
                mass += exp(lp[j + 1]);
                sum += exp(lp[j + 1]) * (c->worth[a * K + j] - kappa * lp[j + 1]);
            }
            if (k->fix) *b = sum / mass;
            loss -= sum + (kappa - *b) * mass; // kappa: of the derivative of -pi log pi
        }
    return loss / tokens;
}

static void test_all_actions_gradients(void)
{
    static int ids[2][2] = {{3, 4}, {1, 5}};
    static const Prompt prompts[2] = {{.ids = ids[0], .n = 2}, {.ids = ids[1], .n = 2}};
    static const size_t rows[2] = {4, 0};
    double rewards[16];
    for (int i = 0; i < 16; i++) rewards[i] = i * 0.9;
    Cdf cdf[2] = {{.M = 16, .reward = rewards}, {.M = 16, .reward = rewards}};
    int threads = omp_get_max_threads();
    omp_set_num_threads(1); // the products are tiny
    for (int v = 0; v < TINIES; v++) {
        Config c = tiny_of(v, 13, v % 2, false);
        Model m;
        Ppo p;
        model_create(&m, ops_cpu(), &c, v ? TRAIN_ALL : 1, false, false);
        random_everywhere(&m, 21);
        PpoOptions opt = {.objective = {.row = ROW(objectives, "vbon"), .N = 4}, .all_actions = 3, .correction = 0.3,
            .fhat = ROW(fhats, "digamma"), .critic = ROW(critics, "prefix-rank"), .temperature = 0.8, .clip = 0.2,
            .value_clip = 0.2, .gamma = 1, .lambda = 0.7, .lr = 1e-2, .episodes = 12, .rollout = 6, .minibatch = 3,
            .epochs = 1, .max_new = 3, .schedule = ROW(schedules, "constant"), .tokens = 12, .rows = 5, .seed = 2,
            .eos = 0, .adamw = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1}};
        ppo_create(&p, &opt, &m, prompts, cdf, 2, letters_prefixes, NULL);
        p.score_candidates = letters_scores;
        ppo_iteration(&p);
        take_prompts(&p); sample_responses(&p); reward_responses(&p); reference_logps(&p); old_logps_and_values(&p);
        candidates_score(&p); action_rewards(&p); advantages(&p);
        const Candidates *k = &p.candidates;
        for (size_t a = 0; a < p.rollout.actions; a++)
            for (size_t j = a * k->K + 1; j < (a + 1) * k->K; j++)
                CHECK(k->logp[j] <= k->logp[j - 1] && k->token[j] != k->token[j - 1], "the likeliest come first");
        double b[6];
        PpoSums sums;
        CandidateCase x = {&p, {0}, rows, 2, b, true};
        pass_create(&x.pass, &m, 20, false);
        candidate_loss(&x);
        x.fix = false;
        minibatch_gradient(&p, rows, 2, &sums);
        check_parameters(&m, "all actions", candidate_loss, &x);
        pass_free(&x.pass); ppo_free(&p); model_free(&m);
    }
    omp_set_num_threads(threads);
}

static void test_bond_gradients(void)
{
    static int ids[2][2] = {{3, 4}, {1, 5}};
    static const Prompt prompts[2] = {{.ids = ids[0], .n = 2}, {.ids = ids[1], .n = 2}};
    static const size_t rows[3] = {4, 0, 3};
    for (int v = 0; v < 2 * TINIES; v++) { // every other one with only the top block
        bool moving = v % 2;
        Config c = tiny_of(v / 2, 13, moving, false);
        Model m;
        Ppo p;
        model_create(&m, ops_cpu(), &c, v % 3 ? TRAIN_ALL : 1, false, false);
        random_everywhere(&m, 21);
        PpoOptions opt = {.objective = {.row = ROW(objectives, moving ? "jbond" : "bond"), .N = moving ? 0 : 3, .k = 4,
                .anchor_rate = 0.5, .anchor_kl = 1},
            .fhat = ROW(fhats, "digamma"), .critic = ROW(critics, "others"), .temperature = 0.8, .clip = 0.2,
            .value_clip = 0.2, .gamma = 1, .lambda = 1, .lr = 1e-2, .episodes = 12, .rollout = 6, .minibatch = 3,
            .epochs = 1, .max_new = 4, .schedule = ROW(schedules, "constant"), .tokens = 12, .rows = 5, .seed = 2,
            .eos = 0, .adamw = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1}};
        ppo_create(&p, &opt, &m, prompts, NULL, 2, letters_reward, NULL);
        CHECK(p.anchor.K == (moving ? 2 : 4) && (p.anchor.average != NULL) == moving, "draws, and an average or none");
        ppo_iteration(&p); // from here on J-BOND's anchor is not the reference
        take_prompts(&p); anchor_draw(&p); sample_responses(&p); reward_responses(&p);
        reference_logps(&p); anchor_logps(&p); old_logps_and_values(&p); action_rewards(&p); advantages(&p);

        // one advantage a response: its return less that of the others
        const Rollout *r = &p.rollout;
        double G[6], sum = 0;
        for (size_t i = 0; i < 6; i++) {
            double kl = 0;
            const double *base = moving ? p.anchor.logp : r->ref_logp;
            for (size_t j = r->at[i]; j < r->at[i + 1]; j++) kl += r->old_logp[j] - base[j];
            G[i] = moving ? anchor_log_f(&p, i) / 2 - 1.5 * kl : (2 * anchor_log_f(&p, i) - kl) / 2;
            sum += G[i];
        }
        for (size_t i = 0; i < 6; i++)
            for (size_t j = r->at[i]; j < r->at[i + 1]; j++)
                CHECK_NEAR(r->advantage[j], G[i] - (sum - G[i]) / 5, 1e-12, "an action's advantage");
        double apart = 0; // the anchor's log-probabilities are those at which it drew
        for (size_t j = 0; j < r->actions && moving; j++) apart += fabs(p.anchor.logp[j] - r->ref_logp[j]);
        CHECK(moving == (apart > 1e-3), "the anchor has moved: %g", apart);
        double lp[8];
        BondCase k = {&p, {0}, rows, 3};
        pass_create(&k.pass, &m, 36, false);
        const Params *drew = moving ? &p.anchor.params : &p.reference;
        for (size_t i = 0; i < 6 * p.anchor.K; i++) {
            Sequence q = sequence_of(&prompts[p.anchor.y[i].prompt], &p.anchor.y[i]);
            sequence_logps(&k.pass, drew, &q, 1, 0.8, lp, NULL);
            for (size_t t = 0; t < p.anchor.y[i].n; t++)
                CHECK_NEAR((double)p.anchor.y[i].logp[t], lp[t], 1e-5, "log p of a draw by the anchor");
        }
        PpoSums sums;
        minibatch_gradient(&p, rows, 3, &sums);
        check_parameters(&m, moving ? "jbond" : "bond", bond_case_loss, &k);
        pass_free(&k.pass); ppo_free(&p); model_free(&m);
    }
}
