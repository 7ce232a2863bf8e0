// The splitting rules of the tokenizers that models were trained with, as llama.cpp names and runs them.
#include "tokenizer/split_rules.h"

#include <algorithm>
#include <iterator>

namespace mlxn::tokenizer {
namespace {

#define CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define SPACES "\\s+(?!\\S)|\\s+"
// Words that take a space along, as GPT-2 has them.
#define GPT2 "'(?:[stmd]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" SPACES
// Words that take any one character before them along and keep line ends together; NUMBER is how digits go.
#define LINES "\\s*[\\r\\n]+|" SPACES
#define TIKTOKEN(NUMBER) "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" NUMBER "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" LINES
// The same, with words cut before a capital letter. Letters beyond ASCII count as both.
#define CAPITALS(UPPER, LOWER, TAIL, NUMBER)                                                                     \
  "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" TAIL "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" TAIL "|" NUMBER \
  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" LINES
#define ASCII_PUNCTUATION_WORD "[!-/:-@\\[-`{-~][A-Za-z]+"

using Pattern = std::string_view;
using Range = CharSet::Range;

constexpr Pattern kDefault[] = {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"};
constexpr Pattern kGpt2[] = {GPT2};
constexpr Pattern kDigitByDigit[] = {"\\p{N}", GPT2};
constexpr Pattern kFalcon[] = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"};
constexpr Pattern kLlama3[] = {CONTRACTION "|" TIKTOKEN("\\p{N}{1,3}")};
constexpr Pattern kQwen2[] = {CONTRACTION "|" TIKTOKEN("\\p{N}")};
constexpr Pattern kQwen35[] = {CONTRACTION
                               "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINES};
constexpr Pattern kNoContractions[] = {TIKTOKEN("\\p{N}")};
constexpr Pattern kLaguna[] = {"[^\\n]+|\\n+", CONTRACTION "|" TIKTOKEN("\\p{N}")};
constexpr Pattern kMinicpm5[] = {"\\p{N}{1,3}", CONTRACTION "|" TIKTOKEN("\\p{N}+")};
constexpr Pattern kSeedCoder[] = {CONTRACTION
                                  "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" LINES};
constexpr Pattern kBailing[] = {CONTRACTION
                                "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|" SPACES};
// Words may hold single spaces.
constexpr Pattern kExaoneMoe[] = {
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}[\\p{L}\\p{M}]*+(?: \\p{L}[\\p{L}\\p{M}]*+)*+|\\p{N}| "
                "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|" SPACES};
constexpr Pattern kTekken[] = {CAPITALS("[A-Z\\p{+L}]", "[a-z\\p{+L}]", "", "\\p{N}")};
constexpr Pattern kGpt4o[] = {CAPITALS("[A-Z\\p{+L}]", "[a-z\\p{+L}]", "(?:" CONTRACTION ")?", "\\p{N}{1,3}")};
constexpr Pattern kGraniteEmbedding[] = {
    CAPITALS("[A-Z\\p{+L}\\p{M}]", "[a-z\\p{+L}\\p{M}]", "(?:" CONTRACTION ")?", "\\p{N}{1,3}")};
constexpr Pattern kChameleon[] = {
    "<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2};

constexpr Pattern kBloom[] = {" ?[^(\\s|.,!?)\\p{stops}]+"};
constexpr Pattern kViking[] = {" ?[^(\\s|.,!?)\\p{stops}]+", "\\p{N}"};
constexpr Range kStopRanges[] = {{0x60c, 0x60c},   {0x6d4, 0x6d4},   {0x964, 0x964},  {0x2026, 0x2026},
                                 {0x3001, 0x3002}, {0xff0c, 0xff0c}};
constexpr CharSet kBloomSets[] = {{"stops", "", kStopRanges}};

constexpr Pattern kDeepseekCoder[] = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "\\p{asian}+", "\\p{N}"};
constexpr Range kAsianRanges[] = {{0x800, 0x9fa5}, {0xac00, 0xd7ff}};
constexpr CharSet kDeepseekCoderSets[] = {{"asian", "", kAsianRanges}};

// `\s+$` with no other start than that of a run of spaces, which would be tried in vain.
constexpr Pattern kDeepseekLlm[] = {"[\\r\\n]",       "\\s?\\p{cased}+", "\\s?\\p{stops}+",
                                    "(?<!\\s)\\s++$", "\\p{asian}+",     "\\p{N}+"};
// Letters of the scripts that have capitals.
constexpr Range kCasedRanges[] = {
    {0xb5, 0xb5},       {0xc0, 0xd6},       {0xd8, 0xf6},       {0xf8, 0x1ba},      {0x1bc, 0x1bf},
    {0x1c4, 0x293},     {0x295, 0x2af},     {0x370, 0x373},     {0x376, 0x377},     {0x37b, 0x37d},
    {0x37f, 0x37f},     {0x386, 0x386},     {0x388, 0x38a},     {0x38c, 0x38c},     {0x38e, 0x3a1},
    {0x3a3, 0x3f5},     {0x3f7, 0x481},     {0x48a, 0x52f},     {0x531, 0x556},     {0x10a0, 0x10c5},
    {0x13a0, 0x13f5},   {0x13f8, 0x13fd},   {0x1c90, 0x1cba},   {0x1cbd, 0x1cbf},   {0x1d00, 0x1d2b},
    {0x1d6b, 0x1d77},   {0x1d79, 0x1d9a},   {0x1e00, 0x1f15},   {0x1f18, 0x1f1d},   {0x1f20, 0x1f45},
    {0x1f48, 0x1f4d},   {0x1f50, 0x1f57},   {0x1f59, 0x1f59},   {0x1f5b, 0x1f5b},   {0x1f5d, 0x1f5d},
    {0x1f5f, 0x1f7d},   {0x1f80, 0x1fb4},   {0x1fb6, 0x1fbc},   {0x1fbe, 0x1fbe},   {0x1fc2, 0x1fc4},
    {0x1fc6, 0x1fcc},   {0x1fd0, 0x1fd3},   {0x1fd6, 0x1fdb},   {0x1fe0, 0x1fec},   {0x1ff2, 0x1ff4},
    {0x1ff6, 0x1ffc},   {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210a, 0x2113},   {0x2115, 0x2115},
    {0x2119, 0x211d},   {0x2124, 0x2124},   {0x2126, 0x2126},   {0x2128, 0x2128},   {0x212a, 0x212d},
    {0x212f, 0x2134},   {0x2139, 0x2139},   {0x213c, 0x213f},   {0x2145, 0x2149},   {0x214e, 0x214e},
    {0x2183, 0x2184},   {0x2c00, 0x2c7b},   {0x2c7e, 0x2ce4},   {0x2ceb, 0x2cee},   {0x2cf2, 0x2cf3},
    {0xa640, 0xa66d},   {0xa680, 0xa69b},   {0xa722, 0xa76f},   {0xa771, 0xa787},   {0xa78b, 0xa78e},
    {0xab70, 0xabbf},   {0xfb00, 0xfb06},   {0xfb13, 0xfb17},   {0xff21, 0xff3a},   {0xff41, 0xff5a},
    {0x10400, 0x1044f}, {0x104b0, 0x104d3}, {0x104d8, 0x104fb}, {0x10c80, 0x10cb2}, {0x10cc0, 0x10cf2},
    {0x118a0, 0x118df}, {0x1e900, 0x1e943}};
constexpr Range kWidePunctuation[] = {{0x2018, 0x201f}, {0x3001, 0x3002}, {0xff01, 0xff0f}, {0xff1a, 0xff5e}};
constexpr CharSet kDeepseekLlmSets[] = {
    {"cased", "A-Za-z", kCasedRanges}, {"stops", "!-/:-~", kWidePunctuation}, {"asian", "", kAsianRanges}};

constexpr Pattern kDeepseek3[] = {
    "\\p{N}{1,3}", "\\p{cjk}+",
    ASCII_PUNCTUATION_WORD "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINES};
constexpr Pattern kSpark[] = {
    "\\p{N}{1,3}", "\\p{cjk}+",
    ASCII_PUNCTUATION_WORD "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\\r\\n]|" SPACES, "\\p{N}"};
constexpr Range kCjkRanges[] = {{0x3040, 0x30ff}, {0x4e00, 0x9fa5}};
constexpr CharSet kCjkSets[] = {{"cjk", "", kCjkRanges}};

constexpr Pattern kYoutu[] = {
    "\\p{hangul}+|\\p{stops}+|\\p{bopomofo}+|\\p{cjk}+",
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+(?:" CONTRACTION ")?|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" LINES};
constexpr Range kHangulRanges[] = {{0x3131, 0x318e}, {0xac00, 0xd7a3}};
constexpr Range kYoutuStops[] = {{0x2014, 0x2014}, {0x2018, 0x2019}, {0x201c, 0x201d}, {0x2026, 0x2026}, {0x3001, 0x303f},
                                 {0xfe30, 0xfe4f}, {0xff01, 0xff01}, {0xff0c, 0xff0c}, {0xff1a, 0xff1b}};
constexpr Range kBopomofoRanges[] = {{0x3105, 0x312f}};
constexpr CharSet kYoutuSets[] = {{"hangul", "", kHangulRanges},
                                  {"stops", "", kYoutuStops},
                                  {"bopomofo", "", kBopomofoRanges},
                                  {"cjk", "", kCjkRanges}};

constexpr SplitRule plain(std::span<const Pattern> steps, std::span<const CharSet> sets = {}) {
  return {.steps = steps, .sets = sets};
}
constexpr SplitRule by_words(std::span<const Pattern> steps, bool adds_bos, std::span<const CharSet> sets = {}) {
  return {.steps = steps, .sets = sets, .ignore_merges = true, .adds_bos = adds_bos};
}
constexpr SplitRule kLlama3Words = by_words(kLlama3, true);
constexpr SplitRule kWithBos = {.steps = kChameleon, .adds_bos = true};
constexpr SplitRule kGlm = {.steps = kLlama3, .has_bos = false};
constexpr SplitRule kGlm4 = {.steps = kLlama3, .ignore_merges = true, .has_bos = false};

struct Named {
  std::string_view name;
  SplitRule rule;
};
constexpr Named kRules[] = {
    {"a.x-4.0", plain(kGpt2)},
    {"bailingmoe", plain(kBailing)},
    {"bailingmoe2", plain(kBailing)},
    {"bloom", plain(kBloom, kBloomSets)},
    {"chameleon", kWithBos},
    {"chatglm-bpe", kGlm},
    {"codeshell", plain(kDigitByDigit)},
    {"command-r", plain(kDigitByDigit)},
    {"dbrx", plain(kLlama3)},
    {"deepseek-coder", plain(kDeepseekCoder, kDeepseekCoderSets)},
    {"deepseek-llm", plain(kDeepseekLlm, kDeepseekLlmSets)},
    {"deepseek-r1-qwen", plain(kQwen2)},
    {"deepseek-v3", plain(kDeepseek3, kCjkSets)},
    {"default", plain(kDefault)},
    {"exaone", plain(kDigitByDigit)},
    {"exaone-moe", plain(kExaoneMoe)},
    {"exaone4", plain(kGpt2)},
    {"f2llmv2", plain(kQwen2)},
    {"falcon", plain(kFalcon)},
    {"falcon-h1", kLlama3Words},
    {"falcon3", kLlama3Words},
    {"gigachat", plain(kGpt2)},
    {"glm4", kGlm4},
    {"glm5", kGlm4},
    {"gpt-2", plain(kGpt2)},
    {"gpt-4o", plain(kGpt4o)},
    {"gpt3-finnish", plain(kBloom, kBloomSets)},
    {"granite-docling", plain(kGpt2)},
    {"granite-embed-multi-97m", by_words(kGraniteEmbedding, false)},
    {"grok-2", plain(kQwen2)},
    {"hunyuan", plain(kQwen2)},
    {"hunyuan-dense", plain(kDeepseek3, kCjkSets)},
    {"hy_v4", plain(kDeepseek3, kCjkSets)},
    {"jais", plain(kGpt2)},
    {"jina-de", plain(kGpt2)},
    {"jina-es", plain(kGpt2)},
    {"jina-v1-en", plain(kGpt2)},
    {"jina-v2-code", plain(kGpt2)},
    {"jina-v2-de", plain(kGpt2)},
    {"jina-v2-es", plain(kGpt2)},
    {"jina-v5-nano", kLlama3Words},
    {"joyai-llm", plain(kDeepseek3, kCjkSets)},
    {"kanana2", plain(kGpt4o)},
    {"kormo", plain(kQwen2)},
    {"laguna", plain(kLaguna)},
    {"lfm2", kLlama3Words},
    {"llada-moe", plain(kBailing)},
    {"llama-bpe", kLlama3Words},
    {"llama-v3", kLlama3Words},
    {"llama3", kLlama3Words},
    {"llama4", plain(kGpt4o)},
    {"megrez", plain(kQwen2)},
    {"mellum", plain(kGpt2)},
    {"mellum2", plain(kDigitByDigit)},
    {"midm-2.0", kLlama3Words},
    {"minerva-7b", plain(kDigitByDigit)},
    {"minicpm5", by_words(kMinicpm5, false)},
    {"minimax-m2", plain(kGpt4o)},
    {"modern-bert", plain(kGpt2)},
    {"mpt", plain(kGpt2)},
    {"olmo", plain(kGpt2)},
    {"phi-2", plain(kGpt2)},
    {"pixtral", kLlama3Words},
    {"poro-chat", plain(kBloom, kBloomSets)},
    {"qwen2", plain(kQwen2)},
    {"qwen35", plain(kQwen35)},
    {"refact", plain(kDigitByDigit)},
    {"roberta-bpe", plain(kGpt2)},
    {"seed-coder", plain(kSeedCoder)},
    {"smaug-bpe", plain(kLlama3)},
    {"smollm", plain(kDigitByDigit)},
    {"solar-open", plain(kQwen2)},
    {"spark2_5", plain(kSpark, kCjkSets)},
    {"stablelm2", plain(kQwen2)},
    {"starcoder", plain(kDigitByDigit)},
    {"talkie", plain(kGpt4o)},
    {"tekken", by_words(kTekken, true)},
    {"trillion", plain(kGpt2)},
    {"ufakzeka", plain(kNoContractions)},
    {"viking", plain(kViking, kBloomSets)},
    {"youtu", by_words(kYoutu, false, kYoutuSets)},
};
static_assert(std::is_sorted(std::begin(kRules), std::end(kRules),
                             [](const Named& a, const Named& b) { return a.name < b.name; }));

}  // namespace

const SplitRule* find_split_rule(std::string_view name) noexcept {
  const auto found = std::lower_bound(std::begin(kRules), std::end(kRules), name,
                                      [](const Named& rule, std::string_view wanted) { return rule.name < wanted; });
  return found != std::end(kRules) && found->name == name ? &found->rule : nullptr;
}

std::string split_rule_names() {
  std::string names;
  for (const Named& rule : kRules) {
    if (!names.empty()) names += ", ";
    names += rule.name;
  }
  return names;
}

std::string_view split_rule_name(std::size_t index) noexcept {
  return index < std::size(kRules) ? kRules[index].name : std::string_view();
}

}  // namespace mlxn::tokenizer
