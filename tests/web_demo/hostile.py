"""Texts that would run, load or hide something if a page took them for markup."""


def attack(template):
    return template.replace("!", "document.title='x'")


HOSTILE = [
    attack(text)
    for text in (
        "<script>!</script>",
        "</textarea><script>!</script>",
        "</title><script>!</script>",
        "--><script>!</script><!--",
        "<ScRiPt>!</sCrIpT>",
        "<script src=https://elsewhere.invalid/x.js></script>",
        "<script type=module>!</script>",
        '<img src=x onerror="!">',
        "<img src=x onerror=!//",
        '<IMG """><SCRIPT>!</SCRIPT>">',
        '<svg onload="!">',
        "<svg><script>!</script></svg>",
        '<svg><animate onbegin="!" attributeName=x dur=1s>',
        '<svg><a href="javascript:!"><text y=9>a</text></a></svg>',
        '<svg><use href="data:image/svg+xml,<svg id=a onload=!>#a"/></svg>',
        '<iframe srcdoc="<script>parent.!</script>"></iframe>',
        '<iframe src="javascript:parent.!"></iframe>',
        '<a href="javascript:!">a</a>',
        '<a href="java&#9;script:!">a</a>',
        "[a](javascript:!)",
        "![a](x onerror=!)",
        '<details open ontoggle="!">',
        '<input autofocus onfocus="!">',
        '<select autofocus onfocus="!"></select>',
        '<video><source onerror="!"></video>',
        '<audio src=x onerror="!"></audio>',
        '<body onload="!">',
        '<marquee onstart="!">a</marquee>',
        '<div style="background:url(https://elsewhere.invalid/)">a</div>',
        '<p style="animation:a" onanimationend="!"></p><style>@keyframes a{}</style>',
        "<math><mtext><style><img src=x onerror=!></style></mtext></math>",
        "<noscript><p title='</noscript><img src=x onerror=!>'>",
        "<template><script>!</script></template>",
        "<style>* { display: none }</style>",
        "<link rel=stylesheet href=https://elsewhere.invalid/x.css>",
        "<base href='https://elsewhere.invalid/'>",
        "<meta http-equiv=refresh content='0;url=https://elsewhere.invalid/'>",
        "<object data='javascript:!'></object>",
        "<embed src='javascript:!'>",
        "<form action='javascript:!'><button autofocus>a</button></form>",
        '"><button autofocus onfocus="!">a</button>',
        "'; !; '",
        "${!}",
        "{{constructor.constructor('!')()}}",
        "__proto__",
        "constructor",
    )
]

# What such a text could have added to the page.
ACTIVE = """() => {
    const all = [...document.querySelectorAll("body *")];
    const kinds = "script, iframe, object, embed, base, meta, link, style, video, audio, " +
        "marquee, math, template:not(body > template), img:not(.bar > img)";
    const handles = (one) => [...one.attributes].some(({ name }) => name.startsWith("on"));
    const leads = (one) => one.hasAttribute("href") && !/^(#|blob:)/.test(one.getAttribute("href"));
    return all.filter((one) => one.matches(kinds) || handles(one) || leads(one))
        .map((one) => one.outerHTML);
}"""
