// What the tests ask of a page. Sizes are in pixels, colours as getComputedStyle tells them.

const parsed = (colour) => {
  const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
  return { red, green, blue, alpha };
};

const over = (top, below) =>
  Object.fromEntries([
    ...["red", "green", "blue"].map((part) => [part, top[part] * top.alpha + below[part] * (1 - top.alpha)]),
    ["alpha", 1],
  ]);

// https://www.w3.org/TR/WCAG22/#dfn-relative-luminance
const luminance = (colour) => {
  const { red, green, blue } = typeof colour === "string" ? parsed(colour) : colour;
  const linear = [red, green, blue].map((part) =>
    part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};

const background = (element) => {
  if (!element) return { red: 255, green: 255, blue: 255, alpha: 1 };
  const own = parsed(getComputedStyle(element).backgroundColor);
  return own.alpha === 1 ? own : over(own, background(element.parentElement));
};

const withText = () =>
  [...document.body.querySelectorAll("*")].filter((element) =>
    !["style", "script"].includes(element.localName)
    && [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));

// Texts whose contrast is below 4.5 to 1 (WCAG's AA).
const faint = () =>
  withText().flatMap((element) => {
    const style = getComputedStyle(element);
    const colour = parsed(element instanceof SVGElement ? style.fill : style.color);
    const behind = background(element);
    const [light, dark] = [luminance(over(colour, behind)), luminance(behind)].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    return contrast < 4.5 ? [`${element.textContent.trim().slice(0, 40)}: ${contrast.toFixed(1)}`] : [];
  });

// Pairs of texts in one chart that lie on each other.
const overlapping = () =>
  [...document.querySelectorAll("svg")].flatMap((svg) => {
    const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent.trim(), text.getBoundingClientRect()]);
    return texts.flatMap(([name, a], index) =>
      texts.slice(index + 1).flatMap(([other, b]) => {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        return across > 1 && down > 3 ? [`${name} / ${other}`] : [];
      }));
  });

const sizes = () => ({
  img: [...document.images].map((image) => image.naturalWidth * image.getBoundingClientRect().width),
  svg: [...document.querySelectorAll("svg")].map((svg) => {
    const { width, height } = svg.getBoundingClientRect();
    return width * height;
  }),
});
