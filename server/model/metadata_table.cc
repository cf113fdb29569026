// The table, in the order of docs/MODELS.md.
#include <array>

#include "server/model/gguf_split.h"
#include "server/model/metadata_keys.h"

namespace mnemo::model {
namespace {

using enum KeyUse;

constexpr std::string_view kRequired = "required";
constexpr std::string_view kGemma3 = "gemma3";
constexpr std::string_view kOthers = "llama,qwen2,qwen3";

// Limits: well above published models, and low enough that no product of them overflows an int.
constexpr std::array kKeys = {
    // Sizes.
    MetadataKey{".block_count", "", kRead, "integer", 1, 1024, kRequired, "Layers"},
    MetadataKey{".context_length", "", kRead, "integer", 1, 1 << 24, kRequired,
                "Trained context, the most `model.context_tokens` can be"},
    MetadataKey{".embedding_length", "", kRead, "integer", 1, 1 << 16, kRequired,
                "Width of the residual stream"},
    MetadataKey{".feed_forward_length", "", kRead, "integer, or an array of equal ones", 1, 1 << 20,
                kRequired, "Width of the feed-forward network"},
    MetadataKey{".attention.head_count", "", kRead, "integer, or an array of equal ones", 1, 1024, kRequired,
                "Query heads"},
    MetadataKey{".attention.head_count_kv", "", kRead, "integer, or an array of equal ones", 1, 1024,
                "attention.head_count", "Key and value heads; divides `attention.head_count`"},
    MetadataKey{".attention.key_length", "", kRead, "integer", 2, 1024,
                "embedding_length / attention.head_count", "Dimensions of a head"},
    MetadataKey{".attention.value_length", "", kRead, "integer", 2, 1024, "attention.key_length",
                "Equals `attention.key_length`; heads with values of another size are refused"},
    MetadataKey{".attention.layer_norm_rms_epsilon", "", kRead, "number", 1e-12, 1.0, kRequired,
                "Added to the mean square in every norm"},

    // Rotary embedding.
    MetadataKey{".rope.dimension_count", "", kRead, "integer", 2, 1024, "attention.key_length",
                "Even count of dimensions of a head that are rotated, the first ones"},
    MetadataKey{".rope.freq_base", kOthers, kRead, "number", 1.0, 1e12, "10000",
                "Base of the frequencies; in gemma3 that of layers that see everything"},
    MetadataKey{".rope.freq_base", kGemma3, kRead, "number", 1.0, 1e12, kRequired,
                "As above; the architecture's default is 1000000 and the reference loader's 10000"},
    MetadataKey{".rope.freq_base_swa", kGemma3, kRead, "number", 1.0, 1e12, "10000",
                "Base of the frequencies of sliding-window layers, which no scaling touches"},
    MetadataKey{".rope.scaling.type", "", kRead, "string", 0, 0, "linear",
                "`none` or `linear`; others, yarn and longrope among them, are refused. `none` makes the "
                "factor void"},
    MetadataKey{".rope.scaling.factor", "", kRead, "number", 1e-3, 1e6, "rope.scale_linear",
                "Positions are divided by it; 0 means 1. Required with `rope.scaling.type` linear unless "
                "`rope.scale_linear` is there"},
    MetadataKey{".rope.scale_linear", "", kRead, "number", 1e-3, 1e6, "1",
                "Older name of `rope.scaling.factor`, which wins"},
    MetadataKey{".rope.scaling.attn_factor", "", kNeutral, "number", 1, 1, "1",
                "Factor on rotated queries and keys"},
    MetadataKey{".rope.scaling.original_context_length", "", kIgnored, "integer", 0, 0, "",
                "A parameter of yarn and longrope"},
    MetadataKey{".rope.scaling.finetuned", "", kIgnored, "bool", 0, 0, "", "How the model was made"},
    MetadataKey{".rope.scaling.yarn_beta_fast", "", kIgnored, "number", 0, 0, "",
                "A parameter of yarn alone"},
    MetadataKey{".rope.scaling.yarn_beta_slow", "", kIgnored, "number", 0, 0, "",
                "A parameter of yarn alone"},
    MetadataKey{".rope.scaling.yarn_attn_factor", "", kNeutral, "number", 1, 1, "1",
                "Factor on rotated queries and keys"},
    MetadataKey{".rope.scaling.yarn_ext_factor", "", kNeutral, "number", 0, -1, "0",
                "Weight of yarn's frequencies; -1 means by type"},

    // Attention.
    MetadataKey{".attention.sliding_window", kOthers, kRead, "integer", 0, 1 << 24, "0",
                "Positions that every layer sees, the row's own among them; 0 = all"},
    MetadataKey{".attention.sliding_window", kGemma3, kRead, "integer", 1, 1 << 24, kRequired,
                "Positions that a sliding-window layer sees, the row's own among them"},
    MetadataKey{
        ".attention.sliding_window_pattern", kGemma3, kRead,
        "integer, or an array of bools or of 0 and 1, one a layer", 0, 1025, "6",
        "Every so many layers one sees everything, the last of them; 0 = none does. An array says 1 for a "
        "sliding-window layer"},
    MetadataKey{
        ".attention.scale", "", kRead, "number", 0, 1e6, "0",
        "Factor on query times key; 0 = 1 / sqrt(attention.key_length), and 1 / sqrt(embedding_length / "
        "attention.head_count) for gemma3 of 62 layers (27B)"},
    MetadataKey{".attention.causal", "", kNeutral, "bool", 1, 1, "true",
                "Positions see only those before them"},
    MetadataKey{".attention.output_scale", "", kNeutral, "number", 0, 1, "0",
                "Factor on what attention gives"},

    // Scales of related architectures that share a name; gemma3's own scale of the embedding is not in the
    // file.
    MetadataKey{".embedding_scale", kOthers, kNeutral, "number", 0, 1, "0", "Factor on embeddings"},
    MetadataKey{".residual_scale", "", kNeutral, "number", 0, 1, "0", "Factor on what layers add"},
    MetadataKey{".logit_scale", "", kNeutral, "number", 0, 1, "0", "Divisor or factor of logits"},
    MetadataKey{".tensor_data_layout", "", kNeutral, "string", 0, 0, "",
                "Order of rows in attention's matrices", "Meta AI original pth"},

    // No effect on numbers.
    MetadataKey{".vocab_size", "", kWarned, "integer", 0, 0, "rows of token_embd.weight",
                "The rows of the embedding table decide; another figure is warned of"},
    MetadataKey{".attention.layer_norm_epsilon", "", kWarned, "number", 0, 0, "",
                "Belongs to norms that these architectures do not have"},
    MetadataKey{".pooling_type", "", kWarned, "integer", 0, 0, "0",
                "Decides embeddings of texts, which are not served"},
    MetadataKey{".decoder_start_token_id", "", kWarned, "integer", 0, 0, "",
                "Belongs to encoders with decoders"},
    MetadataKey{".rope.scaling.alpha", "", kNeutral, "number", 0, 1, "0",
                "Changes the base of the frequencies"},
    MetadataKey{".*", "", kNeutral, "any", 0, 0, "",
                "Every other key of the architecture: experts, soft caps, latent attention, yarn, multimodal "
                "sections, "
                "what is new"},
    MetadataKey{"rope.*", "", kNeutral, "any", 0, 0, "",
                "Keys of the rotary embedding without an architecture"},

    // Text.
    MetadataKey{"tokenizer.ggml.model", "", kRead, "string", 0, 0, kRequired,
                "`gpt2` (byte-level BPE) or `llama` (SentencePiece)"},
    MetadataKey{"tokenizer.ggml.pre", "", kRead, "string", 0, 0, "default",
                "gpt2: how text is cut before merging (docs/TEXT.md); absent or `default` is warned "
                "of. llama: not used"},
    MetadataKey{"tokenizer.ggml.tokens", "", kRead, "array of strings", 0, 0, kRequired,
                "Text of each token"},
    MetadataKey{"tokenizer.ggml.token_type", "", kRead, "array of integers", 0, 6, "1 for all, normal",
                "Kind of each token"},
    MetadataKey{"tokenizer.ggml.scores", "", kRead, "array of numbers", 0, 0, "required with llama",
                "Order of merges of SentencePiece"},
    MetadataKey{"tokenizer.ggml.merges", "", kRead, "array of strings", 0, 0, "empty",
                "Merges of byte-level BPE, first ones first; required where a token has several bytes"},
    MetadataKey{"tokenizer.ggml.bos_token_id", "", kRead, "integer", 0, 0, "llama: 1; gpt2: 11",
                "Begins a text. The default counts if that token is a control token; else there is none"},
    MetadataKey{"tokenizer.ggml.eos_token_id", "", kRead, "integer", 0, 0, "llama: 2; gpt2: 11",
                "Ends a text; default as for `bos_token_id`"},
    MetadataKey{"tokenizer.ggml.eot_token_id", "", kRead, "integer", 0, 0, "none", "Ends a turn"},
    MetadataKey{"tokenizer.ggml.eom_token_id", "", kRead, "integer", 0, 0, "none", "Ends a message"},
    MetadataKey{
        "tokenizer.ggml.unknown_token_id", "", kRead, "integer", 0, 0, "llama: 0; gpt2: none",
        "Stands for text that has no tokens; the default counts if that token is of the kind unknown"},
    MetadataKey{"tokenizer.ggml.add_bos_token", "", kRead, "bool", 0, 0,
                "llama: true; gpt2: true for Llama 3's `pre`, else false",
                "Texts begin with `bos_token_id`. true in a file that has no such token is refused"},
    MetadataKey{"tokenizer.ggml.add_eos_token", "", kRead, "bool", 0, 0, "false",
                "Texts end with `eos_token_id`. true in a file that has no such token is refused"},
    MetadataKey{"tokenizer.ggml.add_space_prefix", "", kRead, "bool", 0, 0, "llama: true; gpt2: false",
                "A blank before a text; true is refused with gpt2"},
    MetadataKey{"tokenizer.ggml.remove_extra_whitespaces", "", kNeutral, "bool", 0, 0, "false",
                "Drops blanks before tokenizing"},
    MetadataKey{"tokenizer.ggml.precompiled_charsmap", "", kNeutral, "array of bytes", 0, 0, "empty",
                "Rewrites text before tokenizing"},
    MetadataKey{"tokenizer.ggml.normalizer.*", "", kNeutral, "any", 0, 0, "",
                "Rewrites text before tokenizing"},
    MetadataKey{"tokenizer.ggml.add_sep_token", "", kNeutral, "bool", 0, 0, "false", "Adds a token to texts"},
    MetadataKey{"tokenizer.chat_template", "", kRead, "string", 0, 0, "by `model.chat_template`",
                "docs/TEXT.md"},
    MetadataKey{"tokenizer.chat_template.tool_use", "", kRead, "string", 0, 0, "tokenizer.chat_template",
                "The template of chats with tools"},
    MetadataKey{"tokenizer.chat_template.*", "", kIgnored, "string", 0, 0, "",
                "Templates for other purposes"},
    MetadataKey{"tokenizer.chat_templates", "", kIgnored, "array of strings", 0, 0, "", "Their names"},
    MetadataKey{"tokenizer.ggml.padding_token_id", "", kIgnored, "integer", 0, 0, "", "For templates alone"},
    MetadataKey{"tokenizer.ggml.seperator_token_id", "", kIgnored, "integer", 0, 0, "",
                "For templates alone"},
    MetadataKey{"tokenizer.ggml.separator_token_id", "", kIgnored, "integer", 0, 0, "",
                "For other architectures"},
    MetadataKey{"tokenizer.ggml.cls_token_id", "", kIgnored, "integer", 0, 0, "", "For templates alone"},
    MetadataKey{"tokenizer.ggml.mask_token_id", "", kIgnored, "integer", 0, 0, "", "For templates alone"},
    MetadataKey{"tokenizer.ggml.image_token_id", "", kIgnored, "integer", 0, 0, "", "For other modalities"},
    MetadataKey{"tokenizer.ggml.audio_token_id", "", kIgnored, "integer", 0, 0, "", "For other modalities"},
    MetadataKey{"tokenizer.ggml.token_type_count", "", kIgnored, "integer", 0, 0, "",
                "For other architectures"},
    MetadataKey{"tokenizer.ggml.fim_*", "", kIgnored, "integer", 0, 0, "",
                "Clients write these tokens themselves"},
    MetadataKey{"tokenizer.ggml.prefix_token_id", "", kIgnored, "integer", 0, 0, "",
                "Older name of fim_pre_token_id"},
    MetadataKey{"tokenizer.ggml.suffix_token_id", "", kIgnored, "integer", 0, 0, "",
                "Older name of fim_suf_token_id"},
    MetadataKey{"tokenizer.ggml.middle_token_id", "", kIgnored, "integer", 0, 0, "",
                "Older name of fim_mid_token_id"},
    MetadataKey{"tokenizer.huggingface.json", "", kIgnored, "string", 0, 0, "",
                "The same vocabulary for others"},
    MetadataKey{"tokenizer.rwkv.world", "", kIgnored, "string", 0, 0, "", "For other architectures"},
    MetadataKey{"tokenizer.*", "", kWarned, "any", 0, 0, "", "Every other key of the tokenizer"},

    // The file.
    MetadataKey{"general.architecture", "", kRead, "string", 0, 0, kRequired, "gemma3, llama, qwen2, qwen3"},
    MetadataKey{"general.name", "", kRead, "string", 0, 0, "the file's name, without the number of a part",
                "The model's name"},
    MetadataKey{"general.alignment", "", kRead, "integer, a power of two", 8, 1 << 20, "32",
                "Of tensors in the file"},
    MetadataKey{"general.type", "", kNeutral, "string", 0, 0, "model",
                "Adapters, projectors and the like are refused", "model"},
    MetadataKey{"general.quantization_version", "", kNeutral, "integer", 2, 0, "2",
                "Layout of quantised blocks"},
    MetadataKey{"general.*", "", kIgnored, "any", 0, 0, "",
                "Where the model comes from, what others sample it with"},
    MetadataKey{"split.no", "", kRead, "integer", 0, kMaxParts - 1, "0; required with several parts",
                "Place of the part, from 0; below `split.count` and as the file's name says"},
    MetadataKey{"split.count", "", kRead, "integer", 0, kMaxParts, "1",
                "Parts of the model; 0 and 1 stand for a file by itself"},
    MetadataKey{"split.tensors.count", "", kRead, "integer", 0, 1 << 16, "required with several parts",
                "Tensors of all parts together; not used in a file by itself"},
    MetadataKey{"split.*", "", kWarned, "any", 0, 0, "", "Every other key of split files"},
};

}  // namespace

std::span<const MetadataKey> MetadataKeys() { return kKeys; }

}  // namespace mnemo::model
