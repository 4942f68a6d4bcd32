"""Every text of the report's interface, in English and Chinese: key -> (English, Chinese)."""

from html import escape
from typing import NamedTuple

from markupsafe import Markup


class Text(NamedTuple):
    """The same in both languages of the interface."""

    en: str
    zh: str


STRINGS = {
    key: Text(*texts)
    for key, texts in {
        "report": ("Evaluation report", "评测报告"),
        "to": ("to", "到"),
        "points": (" points", " 个百分点"),
        "interval": ("95% interval", "95% 区间"),
        "range": ("{low} to {high}", "{low} 至 {high}"),
        "test": ("Test set", "测试集"),
        "probe": ("General probe", "通用探针"),
        "metrics": ("Scores", "指标"),
        "metric": ("Metric", "指标"),
        "difference": ("difference", "差值"),
        "p": ("p", "p 值"),
        "p_holm": ("p, Holm", "p（Holm 校正）"),
        "effect": ("effect size", "效应量"),
        "groups": ("groups", "独立组"),
        "samples": ("Samples", "样本"),
        "signatures": ("How each score is computed", "各指标如何计算"),
        "metrics_about": (
            "Paired on the same samples, by independent group. The first metric is the primary one; Holm corrects its "
            "p-value for all the metrics of a split. Effect size: the difference in standard deviations. A dash: no "
            "interval, for the groups all changed alike.",
            "同一批样本配对比较，按独立组计算。第一个为主指标；Holm 法按全部指标校正 p 值。效应量：差值除以其标准差。"
            "短横线：各组变化相同，无法给出区间。",
        ),
        "not_computed": ("not computed: {reason}", "未计算：{reason}"),
        "image_use": ("Did it use the image?", "是否利用了图像？"),
        "not_measured": ("Not measured", "未测量"),
        "image_missing": (
            "There are no answers to shuffled images in this evaluation.",
            "本次评测没有使用打乱图像的回答。",
        ),
        "forgetting": ("What it forgot", "遗忘"),
        "probe_missing": ("There is no general probe in this evaluation.", "本次评测没有通用探针。"),
        "shuffled": ("another sample's image", "其他样本的图像"),
        "blank": ("a blank image", "空白图像"),
        "neighbour": ("a neighbour of the same class", "同类的相近图像"),
        "text-only": ("no image at all", "没有图像"),
        "gain_better": (
            "Image use, {arm}: the true image is worth {diff} over {control} ({interval}, n = {n}).",
            "图像利用（{arm}）：与{control}相比，真实图像带来 {diff}（{interval}，n = {n}）。",
        ),
        "gain_worse": (
            "Image use, {arm}: the true image does worse than {control}, by {diff} ({interval}, n = {n}).",
            "图像利用（{arm}）：真实图像反而不如{control}，相差 {diff}（{interval}，n = {n}）。",
        ),
        "gain_open": (
            "Image use, {arm}: no gain of the true image over {control} is shown: {diff} ({interval}, n = {n}).",
            "图像利用（{arm}）：未能显示真实图像优于{control}：{diff}（{interval}，n = {n}）。",
        ),
        "gain_none": (
            "Image use, {arm}: the answers do not rest on the image; with {control} all {n} stay the same.",
            "图像利用（{arm}）：回答不依赖图像；换成{control}后，{n} 条回答全部不变。",
        ),
        "gain_too few": (
            "Image use, {arm}: too few samples to judge the gain over {control}: {diff}, n = {n}.",
            "图像利用（{arm}）：样本太少，无法判断相对{control}的增益：{diff}，n = {n}。",
        ),
        "visual_gain": ("Visual gain", "视觉增益"),
        "visual_about": (
            "The same questions with the true image and with another one; the gain is true minus other, paired.",
            "同样的问题分别配真实图像与其他图像；增益为真实减其他，配对计算。",
        ),
        "arm": ("Arm", "模型"),
        "other_image": ("other image", "其他图像"),
        "true_image": ("true image", "真实图像"),
        "baselines": ("Against simple rules", "与简单基线比较"),
        "baselines_about": (
            "{metric} on the split that is judged, n = {n}; below each figure its 95% interval, where it is known.",
            "所评部分上的{metric}，n = {n}；各数值下为 95% 区间（如已知）。",
        ),
        "no_baselines": (
            "There are no baselines in this evaluation, so a score cannot be held against a constant answer here.",
            "本次评测没有基线，因此无法与恒定回答等比较。",
        ),
        "slices": ("Slices", "切片"),
        "slices_about": (
            "Intervals are not corrected for the number of slices: a striking one among many is a hint, no finding.",
            "区间未按切片数量校正：众多切片中个别突出的只是线索，不是结论。",
        ),
        "slice": ("Slice", "切片"),
        "confusion": ("Confusion matrices", "混淆矩阵"),
        "confusion_about": (
            "Rows: the true class. Columns: the class that was named.",
            "行：真实类别。列：回答的类别。",
        ),
        "unparsed": ("unparsed", "无法解析"),
        "true_class": ("true class", "真实类别"),
        "recall": ("recall", "召回率"),
        "precision": ("precision", "精确率"),
        "findings_title": ("Findings in the reports", "报告中的征象"),
        "findings_about": (
            "Read out of references and answers by rules, a possible finding counted as there. n: in references; "
            "named: in answers; below each percentage its 95% interval, a dash where all groups agree.",
            "按规则从参考报告与回答中读出，“可能存在”按存在计。n：参考报告中的数量；提及：回答中的数量；"
            "各百分数下方为 95% 区间，各组一致时为短横线。",
        ),
        "finding": ("Finding", "征象"),
        "named": ("named", "提及"),
        "never": ("never", "从未"),
        "absent_findings": (
            "In no reference and no answer: {names}.",
            "参考报告与回答中均未出现：{names}。",
        ),
        "never_named": (
            "{split}, {arm}: never named in any answer, though in references: {names}.",
            "{split}，{arm}：参考报告中有、回答却从未提及：{names}。",
        ),
        "calibration": ("How sure it is", "置信度校准"),
        "calibration_about": (
            "Of questions with choices: how sure the model is of the likeliest one, against how often that is right, "
            "with 95% intervals. On the dashed line confidence is earned; below it the model is too sure.",
            "对有选项的问题：模型对最可能选项的置信度与其正确率，附 95% 区间。虚线上表示置信度恰当，线下表示过于自信。",
        ),
        "calibration_facts": (
            "right {right}%, mean confidence {confidence}%, expected calibration error {error}%, Brier score {brier}",
            "正确率 {right}%，平均置信度 {confidence}%，期望校准误差 {error}%，Brier 分数 {brier}",
        ),
        "confidence": ("confidence", "置信度"),
        "mean_confidence": ("mean, %", "平均（%）"),
        "share_right": ("right, %", "正确率（%）"),
        "conventions": ("As other projects count", "按其他项目的算法"),
        "answers": ("Answers side by side", "逐条对照"),
        "answers_about": (
            "Right means an exact match. In the answers, what the reference does not say is marked.",
            "“正确”指完全一致。回答中参考答案没有的部分会标出。",
        ),
        "right_by": ("Right or wrong goes by {metric}.", "对错按{metric}判定。"),
        "right_share": ("right", "答对"),
        "answers_marked": (
            "In the answers, what the reference does not say is marked.",
            "回答中参考答案没有的部分会标出。",
        ),
        "answers_split": (
            "{split}: the answers to {changed} of {n} samples differ; {gained} wrong → right, {lost} right → wrong.",
            "{split}：{n} 条样本中 {changed} 条的回答不同；{gained} 条由错变对，{lost} 条由对变错。",
        ),
        "cut": (
            "{split}: of {n} answers an arm, {before} ({baseline}) and {after} ({candidate}) reached max_new_tokens = "
            "{limit} and were cut there.",
            "{split}：每组 {n} 条回答中，{baseline} {before} 条、{candidate} {after} 条达到 max_new_tokens = {limit}"
            " 而被截断。",
        ),
        "errors": ("{errors} could not be answered and count as wrong.", "{errors} 条无法回答，按错误计。"),
        "images_left": (
            "Of {total} images {n} are in this page, which would be too large with all; the folder images/ beside the "
            "report holds the others.",
            "共 {total} 张图像，页面只嵌入 {n} 张，以免过大；其余图像在报告旁的 images/ 文件夹中。",
        ),
        "needs_script": (
            "The answers are shown by a script; without one, read predictions.jsonl.",
            "逐条回答由脚本显示；若已禁用脚本，请查看 predictions.jsonl。",
        ),
        "configuration": ("Configuration", "配置"),
        "decoding": ("decoding", "解码"),
        "versions": ("versions", "版本"),
        "evaluated": ("evaluated", "评测时间"),
        "scored_by": ("scored again with code", "重新评分所用代码"),
        "repeat": ("Repeat it", "复现命令"),
        "full_config": ("Full configuration", "完整配置"),
        "verdict_better": (
            "Better: {metric} went from {before} to {after}, {diff} ({interval}) on {n} samples{grouped}.",
            "有提升：{metric}由 {before} 变为 {after}，{diff}（{interval}），共 {n} 个样本{grouped}。",
        ),
        "verdict_worse": (
            "Worse: {metric} went from {before} to {after}, {diff} ({interval}) on {n} samples{grouped}.",
            "变差：{metric}由 {before} 变为 {after}，{diff}（{interval}），共 {n} 个样本{grouped}。",
        ),
        "verdict_open": (
            "No difference is shown: {metric} went from {before} to {after}, {diff} ({interval}); {power}.",
            "未显示出差异：{metric}由 {before} 变为 {after}，{diff}（{interval}）；{power}。",
        ),
        "verdict_too few": (
            "Too few samples to judge: {metric} went from {before} to {after} on {n} samples{grouped}.",
            "样本太少，无法下结论：{metric}由 {before} 变为 {after}，共 {n} 个样本{grouped}。",
        ),
        "image_better": (
            "It uses the image: with the true image {metric} is {after}, with {control} {before}, {diff} ({interval}) "
            "on {n} samples{grouped}.",
            "利用了图像：{metric}在真实图像下 {after}，{control}下 {before}，{diff}（{interval}），n = {n}{grouped}。",
        ),
        "image_worse": (
            "The true image makes it worse: {metric} is {after}, with {control} {before}, {diff} ({interval}) "
            "on {n} samples{grouped}.",
            "真实图像反而更差：{metric}为 {after}，{control}下为 {before}，{diff}（{interval}），n = {n}{grouped}。",
        ),
        "image_open": (
            "No use of the image is shown: {metric} is {after} with the true image, {before} with {control}, {diff} "
            "({interval}); {power}.",
            "未显示对图像的利用：真实图像下{metric}为 {after}，{control}下为 {before}，{diff}（{interval}）；{power}。",
        ),
        "image_none": (
            "The answers do not rest on the image: with {control} all {n} stay the same ({metric} {after}).",
            "回答不依赖图像：换成{control}后，{n} 条回答全部不变（{metric} {after}）。",
        ),
        "image_too few": (
            "Too few samples to judge: {metric} is {after} with the true image, {before} with {control}, on {n} "
            "samples{grouped}.",
            "样本太少，无法下结论：真实图像下{metric}为 {after}，{control}下为 {before}，共 {n} 个样本{grouped}。",
        ),
        "counted": ("{n} of {all}", "{all} 个中的 {n}"),
        "not_asked": (
            " {asked} was asked for first, but does not apply to these answers, so this rests on {metric}.",
            "首先要求的指标是{asked}，但不适用于这些回答，因此结论依据{metric}。",
        ),
        "grouped": (" in {groups} independent groups", "，{groups} 个独立组"),
        "power": (
            "with {n} items{grouped} whose differences vary as these do, a true difference under {least} is found in "
            "fewer than 80 % of cases (at the 5 % level)",
            "{n} 个样本{grouped}、差值波动如此时，小于 {least}的真实差异被检出的概率不足 80%（显著性水平 5%）",
        ),
        "nothing_to_forget": ("there was nothing to forget", "原本就没有可遗忘的"),
        "forgot_worse": ("{loss} points were forgotten ({interval})", "遗忘 {loss} 个百分点（{interval}）"),
        "forgot_better": (
            "nothing was forgotten, {loss} points were gained ({interval})",
            "没有遗忘，反而提高 {loss} 个百分点（{interval}）",
        ),
        "forgot_open": (
            "neither a loss nor a gain is shown: {change} points ({interval})",
            "未显示下降或上升：{change} 个百分点（{interval}）",
        ),
        "forgot_too few": (
            "too few questions to tell what was forgotten",
            "问题太少，无法判断遗忘",
        ),
        "power_unknown": (
            "so few items find any true difference in fewer than 80 % of cases",
            "样本太少，任何真实差异被检出的概率都不足 80%",
        ),
        "not_seeing": (
            " It is not shown to come from the image.",
            "未显示这一提升来自图像。",
        ),
        "but_forgot": (
            " General ability was lost: {diff} on the probe.",
            "通用能力下降：探针 {diff}。",
        ),
        "rule_better": (
            " A simple rule scores higher: {name}, {score}.",
            "简单规则得分更高：{name}，{score}。",
        ),
        "rule_as_good": (
            " A simple rule does as well: {name}, {score}.",
            "简单规则也能做到：{name}，{score}。",
        ),
        "stamped": (
            " But see the warning: {stamps}.",
            "但请注意警告：{stamps}。",
        ),
        "draw": ("draw {n} of {total}", "第 {n} 次抽取，共 {total} 次"),
        "draws_arm": ("{arm} {mean}, standard deviation {sd}", "{arm} {mean}，标准差 {sd}"),
        "draws_about": (
            "Each question was answered {n} times, by random draws; a sample counts once, with the mean of its draws. "
            "{metric} of the single draws, mean: {arms}.",
            "每个问题随机抽取 {n} 次回答；每个样本取各次的平均，只计一次。单次抽取的{metric}，均值：{arms}。",
        ),
        "curve_memorised": (
            "The domain was scored on training samples, so its curve shows what was memorised.",
            "领域得分取自训练样本，曲线反映的是记忆。",
        ),
        "summary": ("Summary", "摘要"),
        "one_seed": (
            "One training run: the intervals are over test samples, not over training seeds.",
            "仅一次训练：区间只反映测试样本的随机性，不反映训练随机种子的差异。",
        ),
        "how_tested": (
            "How p and interval were made, all draws with seed 1:",
            "p 值与区间的算法（随机抽取的种子均为 1）：",
        ),
        "colon": (": ", "："),
        "multiplicity": (
            "Holm corrects over the {k} tests of this table; the verdict rests on the primary metric's own p and "
            "interval, and the tables of this page are not corrected for each other.",
            "Holm 校正覆盖本表的 {k} 个检验；结论只依据主指标自身的 p 值与区间，页面各表之间不作校正。",
        ),
        "uncorrected": (
            "These p-values are not corrected for the number of rows.",
            "这些 p 值未按行数校正。",
        ),
        "added_later": (
            "{metric} was added when the stored answers were scored again, after the scores had been seen.",
            "{metric}是在已看到得分之后、对保存的回答重新评分时加入的。",
        ),
        "rescore_about": (
            "From the stored answers alone, without model or torch: vglm report <this evaluation's folder>",
            "仅用保存的回答重新评分与生成（无需模型和 torch）：vglm report <本次评测的文件夹>",
        ),
        "curves": ("Learning and forgetting", "学习与遗忘曲线"),
        "step": ("step", "步数"),
        "loss": ("loss", "损失"),
        "learning_title": ("Loss in training", "训练损失"),
        "learning_about": (
            "Loss of each of {n} logged steps, from {first} to {last}.",
            "{n} 个记录步的损失，由 {first} 到 {last}。",
        ),
        "loss_broken": (
            "The loss was no finite number in {n} of {total} logged steps.",
            "{total} 个记录步中有 {n} 个的损失不是有限数。",
        ),
        "scores_curve_title": ("Domain and general ability over the steps", "领域得分与通用能力随步数的变化"),
        "scores_curve_about": (
            "{metric} at every checkpoint, on the split {split} (solid) and on the general probe (dashed), with 95% "
            "Wilson intervals.",
            "各检查点的{metric}：{split}（实线）与通用探针（虚线），附 95% Wilson 区间。",
        ),
        "path_title": ("Domain gain against general ability lost", "领域增益与通用能力损失"),
        "path_about": (
            "A path through the checkpoints, in points of {metric} since before training, the domain on the split "
            "{split}. Up is better, right is worse.",
            "依次经过各检查点，均为相对训练前的{metric}百分点，领域得分取自{split}。越高越好，越靠右越差。",
        ),
        "path_about_budget": (
            "A path through the checkpoints, in points of {metric} since before training, the domain on the split "
            "{split}. Up is better, right is worse; right of the line more than {budget} points were forgotten.",
            "依次经过各检查点，均为相对训练前的{metric}百分点，领域得分取自{split}。越高越好，越靠右越差；虚线右侧表示遗忘超过"
            " {budget} 个百分点。",
        ),
        "ability_lost": ("general ability lost, points", "通用能力损失（百分点）"),
        "domain_gain": ("domain gain, points", "领域增益（百分点）"),
        "budget_label": ("budget: {budget}", "预算：{budget}"),
        "step_label": ("{step}", "{step}"),
        "step_chosen": ("{step}, chosen", "{step}，选定"),
        "curve_over": (
            "Over the forgetting budget: at step {step} the general probe went from {before} to {after}, {loss} points "
            "lost against {budget} allowed, for {domain} points on the {split} samples (n = {domain_n}).",
            "超出遗忘预算：第 {step} 步时通用探针由 {before} 变为 {after}，损失 {loss} 个百分点（预算 {budget}）；"
            "{split}（n = {domain_n}）变化 {domain} 个百分点。",
        ),
        "curve_within": (
            "Within the forgetting budget of {budget} points: at step {step} the general probe went from {before} to "
            "{after} ({change} points, n = {n}), the {split} samples (n = {domain_n}) changed by {domain} points.",
            "在遗忘预算（{budget} 个百分点）之内：第 {step} 步时通用探针由 {before} 变为 {after}（{change}，n = {n}），"
            "{split}（n = {domain_n}）变化 {domain} 个百分点。",
        ),
        "curve_forgot": (
            "General ability was forgotten: at step {step} the general probe went from {before} to {after}, {loss} "
            "points lost (n = {n}), for {domain} points on the {split} samples (n = {domain_n}).",
            "通用能力被遗忘：第 {step} 步时通用探针由 {before} 变为 {after}，损失 {loss} 个百分点（n = {n}）；"
            "{split}（n = {domain_n}）变化 {domain} 个百分点。",
        ),
        "curve_open": (
            "At step {step} the general probe went from {before} to {after} ({change} points, n = {n}), which chance "
            "may explain; the {split} samples (n = {domain_n}) changed by {domain} points.",
            "第 {step} 步时通用探针由 {before} 变为 {after}（{change}，n = {n}），可能出于偶然；"
            "{split}（n = {domain_n}）变化 {domain} 个百分点。",
        ),
        "curve_other": (
            "At step {step} the probe was down to {after}, {loss} points lost: that checkpoint was not taken.",
            "第 {step} 步时通用探针降至 {after}，损失 {loss} 个百分点：该检查点未被采用。",
        ),
        "comma": (", ", "，"),
        "stop": (".", "。"),
        "curve_stopped": (
            "The training was stopped early, when the budget was used up.",
            "遗忘预算用尽，训练提前停止。",
        ),
        "curve_chosen_by": (
            "The checkpoint was chosen by these very scores on {split}, so they flatter it; the verdict rests on other "
            "samples ({main}).",
            "检查点正是按这些{split}得分选出的，因此偏高；结论依据的是其他样本（{main}）。",
        ),
        "curve_chosen_same": (
            "The checkpoint was chosen by its scores on {split}, on which the verdict rests too: both flatter it.",
            "检查点按{split}得分选出，而结论也依据同一部分，因此两者都偏高。",
        ),
        "numbers": ("The numbers", "数据"),
        "thinned": ("{shown} of {n} steps.", "{n} 步中的 {shown} 步。"),
        "all": ("All", "全部"),
        "changed": ("Changed", "有变化"),
        "flip0": ("wrong → right", "错 → 对"),
        "flip1": ("right → wrong", "对 → 错"),
        "flip2": ("wrong in both", "都错"),
        "flip3": ("right in both", "都对"),
        "right": ("✓ right", "✓ 正确"),
        "wrong": ("✗ wrong", "✗ 错误"),
        "empty": ("(empty)", "（空）"),
        "no_answer": ("no answer: ", "无回答："),
        "no_image": ("no image", "无图像"),
        "image_elsewhere": ("image not embedded", "图像未嵌入"),
        "reference": ("reference", "参考答案"),
        "search": ("Search", "搜索"),
        "shown": ("{n} of {total} shown", "显示 {n} / {total}"),
        "none_fits": ("No answer fits.", "没有符合的回答。"),
        "more": ("Show more", "显示更多"),
        "split": ("split", "部分"),
        "kind": ("kind", "类型"),
        "language": ("language", "语言"),
        "study": ("study", "检查"),
        "any": ("{field}: all", "{field}：全部"),
    }.items()
}
ARM_TITLES = {
    "before": Text("before", "调优前"),
    "after": Text("after", "调优后"),
    "shuffled": Text("shuffled", "打乱图像"),
    "true": Text("true", "真实图像"),
}
"""Labels of arms that the workbench itself gives; others are names."""
LANGUAGES = {"en": Text("English", "英文"), "zh": Text("Chinese", "中文")}
SPLIT_TITLES = {
    "test": STRINGS["test"],
    "probe": STRINGS["probe"],
    "validation": Text("Validation", "验证集"),
    "train": Text("Training set", "训练集"),
}
METRIC_TITLES = {
    "exact_match": "完全匹配",
    "normalised_match": "归一化匹配",
    "contains": "包含参考答案",
    "accuracy": "准确率",
    "balanced_accuracy": "平衡准确率",
    "macro_f1": "宏平均 F1",
    "parsed": "可解析的回答",
    "choice_accuracy": "所选答案的准确率",
    "choice_parsed": "选出选项的回答",
    "likelihood_accuracy": "按似然的准确率",
    "likelihood_accuracy_per_character": "按每字似然的准确率",
    "expected_calibration_error": "期望校准误差",
    "brier_score": "Brier 分数",
    "bleu_char": "BLEU（字）",
    "meteor": "METEOR（原形与词干）",
    "bert_score": "BERTScore",
    "judge": "大模型评分",
    "chexbert_micro_f1": "CheXbert 微平均 F1（14 类）",
    "chexbert_macro_f1": "CheXbert 宏平均 F1（14 类）",
    "chexbert_micro_f1_5": "CheXbert 微平均 F1（5 类）",
    "chexbert_macro_f1_5": "CheXbert 宏平均 F1（5 类）",
    "rouge_l_characters": "ROUGE-L（字）",
    "rouge_l_words": "ROUGE-L（词）",
    "answer_length": "回答长度",
    "length_ratio": "长度比",
    "vqa_accuracy": "VQA 准确率",
    "findings_micro_f1": "征象微平均 F1",
    "findings_macro_f1": "征象宏平均 F1",
    "abnormal_recall": "异常检出率",
    "normal_recall": "正常识别率",
    "period_error": "周期：相对误差",
    "period_within_10_percent": "周期误差不超过 10%",
    "amplitude_error": "振幅：相对误差",
    "amplitude_within_10_percent": "振幅误差不超过 10%",
}
"""Where a metric's own title is no name in Chinese too."""
FINDING_TITLES = {
    "No Finding": "未见异常",
    "Enlarged Cardiomediastinum": "纵隔增宽",
    "Cardiomegaly": "心影增大",
    "Lung Lesion": "肺部结节或肿块",
    "Lung Opacity": "肺部阴影",
    "Edema": "肺水肿",
    "Consolidation": "实变",
    "Pneumonia": "肺炎",
    "Atelectasis": "肺不张",
    "Pneumothorax": "气胸",
    "Pleural Effusion": "胸腔积液",
    "Pleural Other": "其他胸膜病变",
    "Fracture": "骨折",
    "Support Devices": "植入物或导管",
}
"""CheXpert's classes."""


def say(key: str, **values: "object | Text") -> Text:
    """A text with its places filled; a value that is a `Text` goes in by language."""
    return Text(
        *(
            text.format(**{name: each[side] if isinstance(each, Text) else each for name, each in values.items()})
            for side, text in enumerate(STRINGS[key])
        )
    )


def metric_title(name: str, title: str) -> Text:
    """A metric's name, which in Chinese too may be its own."""
    return Text(title, METRIC_TITLES.get(name, title))


def finding_title(name: str) -> Text:
    """One of CheXpert's classes."""
    return Text(name, FINDING_TITLES.get(name, name))


def split_title(split: str) -> Text:
    """What a list of samples is called."""
    return SPLIT_TITLES.get(split, Text(split.capitalize(), split))


def signed(points: float) -> str:
    """Points with a sign that is as wide as a plus, and none before zero."""
    text = f"{points:+.1f}"
    return text[1:] if text in ("+0.0", "-0.0") else text.replace("-", "−")


def both(text: Text) -> Markup:
    """A text as markup that shows one language, by the page's switch."""
    if text.en == text.zh:
        return Markup(escape(text.en))
    return Markup(
        f'<span class="en" lang="en">{escape(text.en)}</span><span class="zh" lang="zh-Hans">{escape(text.zh)}</span>'
    )
