// The list of built-in chat templates. A row renders "messages" and, with add_generation_prompt, what an answer begins
// with. No row ends an answer with text that its next turn does not repeat: what was generated stays as it is.
#include "upg/chat.h"

namespace upg {
namespace {

constexpr BuiltinTemplate kTemplates[] = {
    {"chatml", "<|im_start|>ROLE, a line break, the text, <|im_end|>: Qwen and many others",
     "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
    {"phi-4", "<|im_start|>ROLE<|im_sep|>, the text, <|im_end|>",
     "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '<|im_sep|>' ~ m.content ~ '<|im_end|>' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"},
    {"llama-3", "<|start_header_id|>ROLE<|end_header_id|>, an empty line, the text, <|eot_id|>",
     "{{ bos_token }}"
     "{% for m in messages %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' ~ m.content ~ '<|eot_id|>' "
     "}}"
     "{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"},
    {"gemma", "<start_of_turn>user or model, the text, <end_of_turn>; a system message joins the first of the user's",
     "{{ bos_token }}{% set system = namespace(text='') %}"
     "{% for m in messages %}"
     "{% if m.role == 'system' %}{% set system.text = m.content ~ '\\n\\n' %}"
     "{% else %}"
     "{{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' }}"
     "{% if m.role == 'user' %}{{ system.text }}{% set system.text = '' %}{% endif %}"
     "{{ m.content ~ '<end_of_turn>\\n' }}"
     "{% endif %}"
     "{% endfor %}"
     "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"},
    {"plain", "\"User: \" and \"Assistant: \" before the texts: for models that know no markup",
     "{% for m in messages %}"
     "{{ ('' if m.role == 'system' else m.role | capitalize ~ ': ') ~ m.content | trim ~ '\\n\\n' }}"
     "{% endfor %}"
     "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"},
};

}  // namespace

std::span<const BuiltinTemplate> builtin_chat_templates() { return kTemplates; }

}  // namespace upg
