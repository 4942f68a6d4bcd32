# ruff: noqa: E501 - long patterns stay on one line
r"""What radiologists' reports call the 14 classes of CheXpert, in English and Chinese: the table of the labeller.

Each finding has its English terms, one per line, its Chinese terms, and terms that look like them but mean something
else. `\w*` matches the rest of a word, `(?:a|b)` either, `?` an optional part. English words are whole words. Chinese
words of published machine translations are listed beside those of radiologists (巩固 and 合并 for consolidation, 空隙疾病 for
airspace disease, 渗出 for effusion), for both are found in data sets.

Scars, reticulation and interstitial markings are opacities, and sternal wires devices, as in CheXpert's own lists;
unlike there, a granuloma is a lesion, and a calcified one too.
"""

from dataclasses import dataclass

NO_FINDING = "No Finding"
SUPPORT_DEVICES = "Support Devices"


@dataclass(frozen=True, slots=True)
class Words:
    """What names a finding.

    Attributes:
        english: Whole words or phrases, one a line, in lower case; each a regular expression.
        chinese: The same in Chinese.
        never: What contains such words but is something else.
    """

    english: str
    chinese: str
    never: str = r"(?!)"


_SIDES = r"(?:两|双|左|右|侧|肺|上|中|下|叶|底|部|基|区|尖|外|内|后|前|局灶性?|病灶|泡|空隙|的)"

WORDS = {
    "Lung Lesion": Words(
        r"""
        (?:lung|pulmonary|cavitary|pleural|parenchymal)(?: \w+)? (?:lesions?|cancer|tumou?rs?)
        nodul\w+
        micronodul\w+
        mass(?:es)?
        granulomas?
        granulomata
        granulomatous (?:disease|infection|process|changes?|calcifications?|sequela\w*|lesions?|scar\w*)
        neoplas\w+
        carcinoma\w*
        malignan\w+
        metasta\w+
        tumou?rs?
        cavitation
        """,
        r"""
        结节
        肿块
        包块
        占位
        肿瘤
        肺癌
        癌症
        转移瘤
        转移性
        肉芽肿(?!性)
        肉芽肿性(?:病变|疾病|感染|变化|改变|钙化)
        空洞
        肺部?病灶
        """,
        r"mass effect|body mass|muscle mass|结节性硬化"
        r"|(?:nodes?|lymph|hil\w+|mediastin\w+|splen\w+|spleen|liver|hepatic)[^,]{0,60} granulomatous \w+"
        r"|granulomatous (?:calcified )?(?:\w+ )?(?:mediastin\w+|hilar|lymph|nodes?|splen\w+|adenopathy)(?: \w+)*"
        r"|(?:淋巴结|纵[隔膈]|肺门|脾)[^,，]{0,12}肉芽肿性\w{2}|肉芽肿性(?:\w{0,3})(?:淋巴结|纵[隔膈]|肺门|脾)",
    ),
    "Lung Opacity": Words(
        r"""
        \w*opaci\w+
        air ?-?space (?:disease|process|consolidation|abnormalit\w+|infiltrates?|filling)
        alveolar (?:disease|process|infiltrates?)
        infiltrat\w+
        interstitial (?:\w+ )?(?:markings?|thickening|prominence|changes?|patterns?|diseases?|process|abnormalit\w+|fibrosis)
        interstitial lung
        (?:prominent|increased|coarse\w*|thickened|chronic|prominence of the) (?:\w+ )?(?:interstiti\w+|markings)
        (?:prominent|prominence of|increased|coarse\w*) (?:the )?(?:\w+ )?interstitium
        (?:lung|pulmonary|bronchovascular|interstitial) markings (?:are|is|appear) (?:\w+ )?(?:prominent|increased|coarse\w*)
        reticul\w+
        reticulonodular
        densit(?:y|ies)
        increased densit(?:y|ies)
        (?:dense|hazy|patchy|nodular|ill-defined) shadow\w*
        haz(?:y|iness)
        ground ?-?glass
        scar(?:s|ring)?
        (?:pulmonary|interstitial|lung|basilar|apical|parenchymal) fibro\w+
        fibro(?:sis|tic) (?:changes?|scarring|opacit\w+|band\w*|disease)
        peribronchial (?:cuffing|thickening)
        bronchial wall thickening
        """,
        r"""
        不透明
        不透光
        混浊
        浑浊
        混沌
        (?:空|气|腔|间|空气|气体)隙(?:的|性|中|内)?(?:局灶性|急性)?(?:疾病|病变|疾患|病|过程|实变|巩固|固结|合并|浸润|病灶|的?不透明)
        (?:空气|气体|肺泡|气)(?:空间|腔)(?:的|性)?(?:疾病|病变|疾患|不透明|巩固|固结|合并)
        空域(?:疾病|病变|不透明|混浊)
        (?:肺泡|气室)(?:性)?(?:疾病|病变|浸润|病(?!灶))
        浸润
        (?<!胸腔)(?<!胸膜)渗出(?![液物])
        (?:渗出|炎)性?(?:病变|灶|影|改变)
        (?:片|斑点|斑|条索|絮|云雾|点|团|网|磨玻璃|密度增高|模糊|高密度)[状样片]*(?:模糊)?(?:高?密度)?(?:增高)?阴?影
        (?:致密|模糊)阴?影
        磨玻璃
        毛玻璃
        阴影
        (?:高|异常)密度影
        密度(?:增[高加]|升高|增大)
        密度(?=[。,，、（(]|$)
        透[亮光]度(?:减低|降低|下降)
        间质(?:性)?(?:的)?(?:标记|标志|纹理|突出|增厚|增生|增多|增加|病变|改变|变化|疾病|疾患|不透明|浸润|模式|肺部?疾?病|纤维化|异常)
        (?:肺)?间质(?:\w{0,4})(?:突出|增厚|增多|增加|明显)
        (?:突出|增厚|增加|粗大|增多|显著)的?(?:\w{0,4})间质
        间质性肺
        网状
        瘢痕
        疤痕
        结疤
        (?:肺|间质|肺部|肺尖|基底)(?:\w{0,3})纤维化
        纤维(?:化|性|条索)(?:改变|变化|病变|灶|影|条索|索条)?
        支气管(?:周围|壁)(?:的)?(?:\w{0,2})增厚
        """,
        r"radio-?opaque|(?:bony|bone|osseous|skeletal|sclerotic|soft tissue) (?:opacit\w+|lesion\w*|densit\w+|scar\w*)"
        r"|bone mineral densit\w+|bone densit\w+|(?:nodular|calcific|calcified|metallic|vascular|fat|mineral) densit\w+"
        r"|(?:sternotomy|surgical|pleural|incision\w*|midline|skin|chest wall) scar\w*|pleural (?:and|or|/) \w+ scarring|effusions? (?:and|or|versus|vs) (?:pleural )?scar\w*|(?:渗出物?|积液)(?:或|和)[疤瘢]痕"
        r"|骨(?:骼|质|性|头|组织)?(?:的)?(?:密度|不透明|混浊|疤痕|瘢痕)\w{0,2}|结节状?的?密度|(?:切口|手术|胸膜|皮肤|切开术?)的?[疤瘢]痕"
        r"|(?:钙化|金属|血管)\w{0,2}密度(?:影)?|软组织\w{0,3}(?:密度|混浊|不透明|阴影)(?:影)?|骨\w{0,4}密度\w{0,2}|乳头阴影|心脏阴影|囊性纤维化|cystic fibrosis"
        r"|心包渗出|胸(?:膜腔?|腔)[^,、]{0,4}渗出",
    ),
    "Edema": Words(
        r"""
        o?edema
        (?:pulmonary |central )?vascular congestion
        (?:pulmonary|venous|pulmonary venous) congestion
        congestive (?:changes?|failure)
        (?:congestive )?(?:heart|cardiac) failure
        (?:fluid|volume) overload
        cephalization
        (?:vascular|venous) engorgement
        engorged (?:\w+ )?(?:vasculature|vessels|veins)
        chf
        """,
        r"""
        水肿
        肺?血?管?(?:的)?(?:淤|瘀)血
        肺部?(?:的)?(?:血管)?充血(?!性心)
        (?:血管|静脉)(?:的)?充血
        充血性(?:改变|变化)
        (?:充血性)?心(?:力|脏)?(?:功能)?衰竭
        心衰
        """,
        r"(?:soft tissue|subcutaneous) o?edema|软组织水肿|皮下水肿",
    ),
    "Consolidation": Words(
        r"""
        consolidat\w+
        """,
        rf"""
        实变
        固结
        巩固
        整合
        {_SIDES}+合并(?!感染|症|胸|有|伴|肺)
        合并(?=[、,，]|或|和|的(?:迹象|证据|区域|空隙)|区域|病灶|症[、,，])
        """,
        r"巩固治疗",
    ),
    "Pneumonia": Words(
        r"""
        \w*pneumonia\w*
        pneumonitis
        infecti\w+
        """,
        r"""
        肺炎
        感染
        """,
        r"(?:granulomatous|previous|prior|old|remote) infecti\w+(?: \w+)?|sequelae? of (?:\w+ )?infecti\w+|感染的?后遗症|肉芽肿性感染|陈旧性?\w{0,4}感染|既往\w{0,3}感染",
    ),
    "Atelectasis": Words(
        r"""
        \w*atelecta\w+
        (?:lung|lobe|lobar|pulmonary|segmental|partial) collapse
        collapse[ds]? (?:of the |lung|lobe|right|left|\w+ lobe)\w*
        volume loss
        loss of (?:lung )?volume
        """,
        r"""
        不张
        萎陷
        膨胀不全
        (?:肺|叶)(?:部)?(?:\w{0,2})(?:塌陷|萎缩|无气|缩小)
        (?:肺|叶)的?(?:容积|体积)(?:减少|缩小|丢失|损失|丧失)
        无气(?!胸)
        漏气
        无渗漏
        """,
        r"不张扬",
    ),
    "Pneumothorax": Words(
        r"""
        \w*pneumothora\w*
        """,
        r"""
        气胸
        """,
        r"pneumothorax view",
    ),
    "Pleural Effusion": Words(
        r"""
        \w*effusion\w*
        (?:pleural|loculated) (?:fluid|collections?)
        fluid (?:\w+ )?(?:in|within|collection\w* in) the pleural
        hydro(?:pneumo)?thorax
        blunt\w*
        """,
        r"""
        积液
        积水
        胸水
        (?:胸膜?腔?|胸膜)(?:内|中|的)?(?:见|有|可见)?(?:少量|大量|中量)?(?:液体|渗出)\w{0,1}
        渗[出液](?:物|液)?(?!性|灶|影)
        肋膈[角沟窦](?:\w{0,4})(?:变钝|钝化|圆钝|模糊|消失|变浅|钝)
        (?:变钝|钝化|圆钝)
        """,
        r"pericardial effusion\w*|心包(?:腔)?积[液水]|关节积液|炎性渗出|肺\w{0,3}渗出(?:性病变)?",
    ),
    "Pleural Other": Words(
        r"""
        (?:\w*pleural|pleura)(?: (?:and|or|/)? ?[\w-]+){0,2}? (?:thickening|scar\w*|plaques?|calcific\w+|calcified|fibro\w+|reaction)
        (?:thickening|scarring|calcifications?|plaques?) of the (?:\w+ )?pleura
        pleur\w+-?parenchymal (?:scar\w*|thickening)
        fibrothorax
        apical (?:pleural )?cap(?:s|ping)?
        """,
        r"""
        胸膜(?:的)?[^未无不没,、]{0,3}(?:增厚|粘连|肥厚|钙化|[瘢疤]痕|斑块?|纤维化|加厚|帽|盖)
        """,
        r"subpleural|胸膜下",
    ),
    "Fracture": Words(
        r"""
        fractur\w+
        (?:compression|wedge|compressed)(?:d|ion)? (?:\w+ )?deformit\w+
        (?:vertebral|vertebrae|spinal|body|bodies)(?: \w+){0,2}? compression
        """,
        r"""
        骨折
        断裂
        压缩(?:性)?(?:\w{0,2})(?:变形|畸形|改变)
        楔形(?:变|畸形|改变)\w{0,1}
        """,
    ),
    SUPPORT_DEVICES: Words(
        r"""
        pacemakers?
        pacers?
        pacing
        a?icds?
        defibrillators?
        \w*catheters?
        picc
        (?:medi|infusa|porta)-?ports?
        port-?a-?caths?
        (?:chest|infusion|venous|subclavian|jugular|access|central|catheter|right|left|tunneled)(?: \w+)? ports?
        tub(?:e|es|ing)
        (?:ng|et|endotracheal|nasogastric|enteric|tracheostomy) \w+
        tracheostomy
        (?:central|venous|iv|picc|arterial|jugular|subclavian|support|access|infusion|dialysis|monitoring|ekg|ecg|catheter)(?: venous)? lines?
        lines (?:and|or) tubes
        drains?
        stents?
        (?:\w+ )?clips?
        wires?
        cerclage
        sutures?
        staples?
        sternotom\w+
        coronary artery bypass
        cabg
        bypass grafts?
        valve (?:replacement|prosthes\w+|repair)s?
        (?:prosthetic|artificial|mechanical|aortic|mitral|tricuspid|replaced|bioprosthetic) valves?
        prosthe\w+
        arthroplast\w+
        hardware
        (?:pedicle |surgical |orthopedic )?screws?
        (?:fixation|metallic|surgical|orthopedic|metal|fusion) (?:plates?|rods?|devices?|pins?|fixation|objects?|anchors?)
        spinal (?:fusion|rods?|stimulator|fixation)
        (?:cervical|lumbar|thoracic)(?: spine)? fusion
        leads?
        electrodes?
        devices?
        shunts?
        stimulators?
        (?:embolization|surgical) coils?
        implants?
        loop recorder
        vertebroplasty
        kyphoplasty
        intubat\w+
        cannula\w*
        """,
        r"""
        起搏器
        除颤器
        a?icd
        picc
        cabg
        导管
        插管
        套管
        引流管
        置管
        胃管
        分流管?(?!术前)
        (?:中心|静脉|动脉|锁骨下|颈内)(?:静脉)?(?:管路?|线路?|通路)
        (?:输液|注射|化疗|静脉)?(?:港(?!口)|端口)
        内固定
        支架
        (?:手术|外科|金属|血管|纵隔|胆囊\w{0,4}|夹闭|止血|缝合)夹子?
        夹子
        假体
        (?:金属|钢|胸骨|缝合)\w{0,3}(?:丝|线)
        缝[线合]
        线圈
        螺[钉丝]
        (?:钢|钛|接骨|金属|固定)板
        硬件
        植入(?:物|术|器)
        装置
        仪器
        电极
        导[线联]
        引线
        电线
        胸骨\w{0,4}(?:切开|劈开|手术|开胸)
        (?:冠状动脉|冠脉)?(?:搭桥|旁路)
        (?:人工|机械|假体|生物|置换)\w{0,2}瓣膜?
        瓣膜?(?:膜)?(?:置换|修复|替换)
        关节(?:成形|置换)
        椎体成形
        (?:脊柱|颈椎|腰椎|胸椎)\w{0,2}融合
        刺激器
        吻合钉
        """,
        r"sternotomy (?:\w+ )?(?:scars?|sites?|incisions?)|胸骨\w{0,6}(?:切口|切开)\w{0,3}(?:[疤瘢]痕|部位)|leads? to|may lead|can lead|leading|led to|electrocardiograms?|plate-?like|right heart|x-ray (?:device|tube)"
        r"|eustachian tubes?|支架状|(?:没有|无)任何装置不|线圈状|air trapping",
    ),
}
"""The findings that words name; those that are states of an organ, like a heart's size, stand in `ORGANS`."""


@dataclass(frozen=True, slots=True)
class Organ:
    """An organ whose size makes a finding.

    Attributes:
        english: What it is called, each a regular expression, one a line.
        chinese: The same in Chinese.
        nouns: Words for the finding that need no organ.
    """

    english: str
    chinese: str
    nouns: str


ORGANS = {
    "Cardiomegaly": Organ(
        r"""
        heart(?! failure| disease| rate| valve)(?:'s)?
        cardiac(?! failure| device| pacemaker| monitor| valve| surgery)
        cardiopericardial
        ventric(?:le|ular)
        """,
        r"""
        心脏(?!病|科|衰|起搏|手术|瓣|功能|过程)
        心影
        心胸比例?
        心(?:脏)?(?:轮)?廓(?!线|形)
        心肌
        [左右]心[室房]
        """,
        r"cardiomegaly|megalocardia|心肥大|巨心",
    ),
    "Enlarged Cardiomediastinum": Organ(
        r"""
        mediastin(?:um|al)(?! (?:clips?|surgical|lymph\w*|node\w*|calcif\w+|wires?|drain\w*|structures?|shift|mass))
        cardio-? ?mediastin(?:um|al)
        """,
        r"""
        心?纵[隔膈](?!夹|淋巴|钙化|肿|气|移|手术)
        心胸(?:廓|轮廓|阴)?[线形型影]?(?!比)
        """,
        r"(?!)",
    ),
}
"""Organs of which reports say how large they are."""

# What may stand between an organ and its state, and the states.
ENGLISH_LIGHT = (
    r"size|silhouettes?|contours?|shadow|shape|configuration|borders?|width|is|are|was|were|appears?|appeared|seems?|to|be|been|"
    r"remains?|remained|has|have|found|noted|shows?|showed|demonstrates?|demonstrated|revealed|somewhat|slightly|mild|mildly|"
    r"minimal|minimally|moderate|moderately|marked|markedly|severe|severely|grossly|stable|stably|again|also|at|within|the|and|of|"
    r"in|overall|quite|relatively|very|for|in|midline|mediastinal|mediastinum|cardiac|heart|"
    r"cardiomediastinal|pulmonary|vascularity|vasculature|vessels|aorta|hilar|hila|lungs|structures|"
    r"unchanged|still|now|increasingly|chronically|persistently|significantly|a|an|some|evidence|"
    r"indicate[sd]?|suggest\w*|considered|both|probably|possibly|likely|may|either|or|but|/|patient's|exhibits?"
)
ENGLISH_LARGE = (
    r"enlarged|enlargement|enlarging|large(?! effusion| pleural)|larger than(?: is)? normal|bigger than normal|larger|bigger|big|"
    r"prominent|prominence|widened|widening|wide|dilated|dilatation|increased(?! vascular| pulmonary| lung| inter)|"
    r"hypertroph\w+|generous|exceed\w*(?: the)? (?:normal|upper)|above(?: the)?(?: upper)?(?: limits? of)? normal|greater than normal|cardiomegaly"
)
ENGLISH_LIMIT = (
    r"(?:upper|high|top|outer)(?: end)?(?: limits?)?(?: of| range of)? (?:the )?normal|borderline|high normal"
)
ENGLISH_NORMAL = (
    r"normal\w*|unremarkable|within normal|not (?:\w+ )?(?:enlarged|large|big|widened|prominent|abnormal)|regular|healthy|"
    r"small|intact"
)
CHINESE_LARGE = (
    r"增大|扩大|肥大|肿大|变大|偏大|略大|较大|过大|增宽|变宽|加宽|扩张|突出|突起|饱满|增加|增厚|隆起"
    r"|(?<=[轻中微度略稍很较偏])大(?!小|约|概|量|体)|[大高]于正常|超过正常|大(?=$|[,])|(?:比|较)正常(?:值|上限|范围)?(?:略|稍|明显|轻度|要|更|偏)*大"
)
CHINESE_LIMIT = r"正常(?:值|范围)?的?(?:的)?(?:上限|高限)|上限|边缘性?|临界"
CHINESE_NORMAL = (
    r"正常|不大|不宽|居中|无异常|未见异常|没有(?:什么)?(?:明显)?异常|不明显|健康|规则|清晰|无特殊|不突出|并不突出"
)
