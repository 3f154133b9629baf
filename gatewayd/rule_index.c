/* Reading rules when they are asked for, see rule_index.h. */
#include "gatewayd/rule_index.h"

void rule_index_clear(struct rule_index *index)
{
	trace_rules_free(index->rules);
	*index = (struct rule_index){ 0 };
}

const struct trace_rules *rule_index_get(struct rule_index *index, const struct apply *apply, struct kernel *kernel)
{
	_cleanup_free_ char *text = NULL;
	struct trace_rules *rules;

	if ((index->rules && index->serial == apply_serial(apply)) || kernel_nft_rules(kernel, &text) < 0 ||
	        trace_rules_parse(text, &rules) < 0)
		return index->rules;
	trace_rules_free(index->rules);
	index->rules = rules;
	index->serial = apply_serial(apply);
	return rules;
}
