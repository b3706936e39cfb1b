//! A figure of quality against speedup, as an SVG file which needs no other.

/// A setting of a policy: how fast it is, how good, and what it is called when pointed at.
#[derive(Clone, Debug)]
pub struct Point {
    /// How many times as fast.
    pub x: f64,
    /// The quality.
    pub y: f64,
    /// What it is called.
    pub label: String,
}

/// A policy. A line joins its points in the order of `x`; of more than twelve, which are a grid, its best; the others are
/// faint.
#[derive(Clone, Debug)]
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// Its settings.
    pub points: Vec<Point>,
}

/// Policies, and single points to compare them with, which show their labels.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below the axis of speed.
    pub x_label: String,
    /// Beside the axis of quality.
    pub y_label: String,
    /// The policies.
    pub curves: Vec<Curve>,
    /// Single points.
    pub marks: Vec<Point>,
}

/// So many points at most vary one threshold; more are a grid over two, and no line leads through all.
const GRID: usize = 12;
const WIDTH: f64 = 900.0;
const TOP: f64 = 48.0;
const RIGHT: f64 = WIDTH - 24.0;
const BOTTOM: f64 = TOP + 440.0;

// A colour is a class's `color`, not a custom property, which viewers other than browsers often lack. The
// curves' colours were chosen to differ for the colour-blind too.
const LIGHT: &str = ".paper{color:#fff}.ink{color:#1f2328}.soft{color:#57606a}.grid{color:#e4e7eb}.marker{stroke:#fff}
.c0{color:#0072b2}.c1{color:#bb7500}.c2{color:#2ea671}.c3{color:#812861}.c4{color:#6d5502}
.c5{color:#4a94ff}.c6{color:#843ede}.c7{color:#8d0b37}.c8{color:#344009}.c9{color:#888888}";
const DARK: &str =
    ".paper{color:#14181f}.ink{color:#e6e9ee}.soft{color:#a3abb6}.grid{color:#2a303a}.marker{stroke:#14181f}
.c0{color:#4aa8f0}.c1{color:#f54735}.c2{color:#5ce996}.c3{color:#de94a9}.c4{color:#ff8610}
.c5{color:#b2d4e7}.c6{color:#8d6df5}.c7{color:#eb3ba5}.c8{color:#e1cd5f}.c9{color:#898375}";
const LINES: &str =
    ".line{fill:none;stroke:currentColor}.curve{stroke-width:2}.faint{opacity:.55}.ring{stroke-width:1.5}
.front{stroke-width:7;stroke-dasharray:9 4;opacity:.3}";
/// A disc, a square, a triangle, a diamond, a triangle, a plus, a cross, a star, a triangle and an hourglass.
const SHAPES: [&str; 10] = [
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "M-4.6-4.6h9.2v9.2h-9.2z",
    "M0-6.5l6,10.5h-12z",
    "M0-7l5.5,7l-5.5,7l-5.5-7z",
    "M0,6.5l6-10.5h-12z",
    "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "M0-2.8l3.2-3.2l2.8,2.8l-3.2,3.2l3.2,3.2l-2.8,2.8l-3.2-3.2l-3.2,3.2l-2.8-2.8l3.2-3.2l-3.2-3.2l2.8-2.8z",
    "M0-7.5l1.8,5.1l5.3,.1l-4.2,3.2l1.5,5.2l-4.4-3.1l-4.4,3.1l1.5-5.2l-4.2-3.2l5.3-.1z",
    "M6.5,0l-10.5-6v12z",
    "M-5-6h10l-3.6,6l3.6,6h-10l3.6-6z",
];
const MARK: &str = "M0-15l4,11l11,4l-11,4l-4,11l-4-11l-11-4l11-4z";

type Place = (f64, f64);

/// Which of the points no other beats, by being as good in both and better in one. Equal points do not beat each other.
pub fn pareto(points: &[(f64, f64)]) -> Vec<bool> {
    let beats = |a: Place, b: Place| drawable(a) && a.0 >= b.0 && a.1 >= b.1 && a != b;
    points.iter().map(|&point| drawable(point) && !points.iter().any(|&other| beats(other, point))).collect()
}

impl Plot {
    /// The figure as SVG.
    pub fn svg(&self) -> String {
        let curves: Vec<Vec<&Point>> = self.curves.iter().map(|curve| drawn(curve.points.iter())).collect();
        let marks = drawn(self.marks.iter());
        let all = drawn(curves.iter().flatten().chain(&marks).copied());
        let y = axis(all.iter().map(|point| point.y), 10.0);
        let (x, scale) = speed_axis(all.iter().map(|point| point.x));
        let left = 46.0 + y.1.iter().map(|tick| wide(&tick.1, 13.0)).fold(0.0, f64::max);
        let (first, last) = (scale(x.0.0), scale(x.0.1));
        let across = |value: f64| left + (scale(value) - first) / (last - first) * (RIGHT - left);
        let up = |value: f64| BOTTOM - (value - y.0.0) / (y.0.1 - y.0.0) * (BOTTOM - TOP);
        let at = |point: &Point| (across(point.x), up(point.y));

        let mut axes = String::new();
        for (x, label) in x.1.iter().map(|(value, label)| (across(*value), label)) {
            axes += &line(&[(x, TOP), (x, BOTTOM)], "grid");
            axes += &text(label, "soft", (x, BOTTOM + 19.0), "middle", 13.0, 100.0);
        }
        for (y, label) in y.1.iter().map(|(value, label)| (up(*value), label)) {
            axes += &line(&[(left, y), (RIGHT, y)], "grid");
            axes += &text(label, "soft", (left - 8.0, y + 4.5), "end", 13.0, 200.0);
        }
        axes += &line(&[(left, TOP), (left, BOTTOM), (RIGHT, BOTTOM)], "soft");
        axes += &text(&self.title, "ink", (WIDTH / 2.0, 30.0), "middle", 17.0, WIDTH - 40.0);
        axes += &text(&self.x_label, "ink", ((left + RIGHT) / 2.0, BOTTOM + 43.0), "middle", 14.0, RIGHT - left);
        let y_label = text(&self.y_label, "ink", (-(TOP + BOTTOM) / 2.0, 22.0), "middle", 14.0, BOTTOM - TOP);
        axes += &format!(r#"<g transform="rotate(-90)">{y_label}</g>"#);

        // In layers, so that no line hides a marker. A label shall not be where something is `taken`, at a cost.
        let (mut faint, mut lines, mut markers, mut legend) = (String::new(), String::new(), String::new(), Vec::new());
        let mut taken: Vec<(Place, Place, usize)> = all.iter().map(|point| (at(point), (9.0, 9.0), 1)).collect();
        let mut take = |path: &[Place]| taken.extend(along(path).into_iter().map(|place| (place, (5.0, 5.0), 1)));
        for (index, (curve, points)) in self.curves.iter().zip(&curves).enumerate() {
            let (shape, colour) = (SHAPES[(index + index / 10) % 10], format!("c{}", index % 10));
            let mut path = Vec::new();
            for (point, best) in points.iter().zip(best(points)) {
                let tooltip = tooltip(&curve.name, point);
                if best || points.len() <= GRID {
                    path.push(at(point));
                    markers += &marker(shape, &colour, at(point), 1.0, &tooltip);
                } else {
                    faint += &marker(shape, &format!("{colour} faint"), at(point), 0.6, &tooltip);
                }
            }
            lines += &line(&path, &format!("{colour} curve"));
            take(&path);
            if !points.is_empty() {
                let sample = line(&[(0.0, 0.0), (34.0, 0.0)], &format!("{colour} curve"));
                legend.push((sample + &marker(shape, &colour, (17.0, 0.0), 1.0, ""), curve.name.as_str()));
            }
        }
        if !faint.is_empty() {
            let dots = [(5.0, 3.0), (17.0, -3.0), (29.0, 3.0)].map(|at| marker(SHAPES[0], "soft faint", at, 0.6, ""));
            legend.push((dots.concat(), "other settings of a grid"));
        }
        let front: Vec<Place> = all.iter().zip(best(&all)).filter(|pair| pair.1).map(|pair| at(pair.0)).collect();
        let ring = |&(x, y): &Place| format!(r#"<circle class="ink line ring" cx="{x:.1}" cy="{y:.1}" r="8.5"/>"#);
        let rings: String = front.iter().map(ring).collect();
        take(&front);
        if !front.is_empty() {
            let sample = line(&[(0.0, 0.0), (34.0, 0.0)], "ink front") + &ring(&(17.0, 0.0));
            legend.push((sample, "Pareto front of all"));
        }
        let front = line(&front, "ink front");

        let mut labels = String::new();
        taken.extend(marks.iter().map(|mark| (at(mark), (14.0, 14.0), 100)));
        for mark in marks {
            let ((x, y), half) = (at(mark), (wide(&mark.label, 14.0).min(260.0) / 2.0 + 3.0, 10.0));
            let middle = beside((x, y), half, left, &taken);
            let end = (x.clamp(middle.0 - half.0, middle.0 + half.0), y.clamp(middle.1 - half.1, middle.1 + half.1));
            // A line leads to a label for which there is no room at its point.
            if (end.0 - x).hypot(end.1 - y) > 24.0 {
                labels += &line(&[(x, y), end], "soft");
            }
            let place =
                format!(r#"x="{:.1}" y="{:.1}" width="{:.1}""#, middle.0 - half.0, middle.1 - half.1, 2.0 * half.0);
            labels += &format!(r#"<rect class="paper faint" fill="currentColor" {place} height="{}"/>"#, 2.0 * half.1);
            labels += &text(&mark.label, "ink", (middle.0, middle.1 + 5.0), "middle", 14.0, 260.0);
            labels += &marker(MARK, "ink", (x, y), 1.0, &tooltip("", mark));
            taken.push((middle, half, 100));
        }

        let column = 64.0 + legend.iter().map(|entry| wide(entry.1, 13.0).min(780.0)).fold(0.0, f64::max);
        let columns = ((WIDTH - 16.0) / column).floor().clamp(1.0, legend.len().max(1) as f64);
        let rows = legend.len().div_ceil(columns as usize);
        let start = (WIDTH + 22.0 - column * columns) / 2.0;
        let mut key = String::new();
        for (index, (sample, name)) in legend.iter().enumerate() {
            let (x, y) = (start + (index / rows) as f64 * column, BOTTOM + 74.0 + (index % rows * 22) as f64);
            key += &format!(r#"<g transform="translate({x:.1} {y})">{sample}</g>"#);
            key += &text(name, "ink", (x + 42.0, y + 4.5), "start", 13.0, 780.0);
        }
        let (height, title) = (BOTTOM + (72 + rows * 22) as f64, escape(&self.title));
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">
<style>{LIGHT}{LINES}@media (prefers-color-scheme:dark){{{DARK}}}</style>
<rect class="paper" width="{WIDTH}" height="{height}" fill="currentColor"/>
<g font-family="system-ui,Helvetica,Arial,sans-serif">{axes}{faint}{front}{lines}{labels}{markers}{rings}{key}</g>
</svg>
"#
        )
    }
}

/// Also not what is too large to compute with, which is no speedup and no quality.
fn drawable((x, y): Place) -> bool {
    x.abs() < 1e9 && y.abs() < 1e9
}

fn drawn<'a>(points: impl Iterator<Item = &'a Point>) -> Vec<&'a Point> {
    let mut points: Vec<&Point> = points.filter(|point| drawable((point.x, point.y))).collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    points
}

fn best(points: &[&Point]) -> Vec<bool> {
    pareto(&points.iter().map(|point| (point.x, point.y)).collect::<Vec<_>>())
}

type Axis = ((f64, f64), Vec<(f64, String)>);

/// The axis of the speedups, and what its values are drawn by: their logarithms where the fastest is far from the others, as
/// a little model alone is.
fn speed_axis(values: impl Iterator<Item = f64> + Clone) -> (Axis, fn(f64) -> f64) {
    let (low, high) = values.clone().fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
    if !(low > 0.0 && high > 5.0 * low) {
        return (axis(values, 12.0), |x| x);
    }
    let (low, high) = (low / 1.06, high * 1.06);
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    // Written first: the product of 7 and 0.1 has more digits than it should.
    let ticks = decades.flat_map(|decade| ["1", "1.5", "2", "3", "5", "7"].map(|x| format!("{x}e{decade}")));
    let ticks = ticks.filter_map(|tick| tick.parse::<f64>().ok()).filter(|tick| (low..=high).contains(tick));
    let ticks = ticks.map(|tick| (tick, format!("{tick}")));
    (((low, high), ticks.collect()), f64::ln)
}

/// A range around the values, and the round numbers in it, as they are written.
fn axis(values: impl Iterator<Item = f64>, at_most: f64) -> Axis {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
    let size = low.abs().max(high.abs());
    // Values as good as equal are not drawn apart.
    let room = if high - low < 1e-3 * size || high - low < 1e-6 { (0.05 * size).max(0.5) } else { 0.1 * (high - low) };
    let (low, high) = (low - room, high + room);
    let least = (high - low) / at_most;
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&step| step >= least);
    let step = step.unwrap_or(least);
    let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
    let ticks = ((low / step).ceil() as i64..=(high / step).floor() as i64).map(|count| count as f64 * step);
    ((low, high), ticks.map(|tick| (tick, format!("{tick:.decimals$}").replace('-', "−"))).collect())
}

/// Where in the frame a label, of this half width and half height, hides the least and is nearest to its point.
fn beside((x, y): Place, half: Place, left: f64, taken: &[(Place, Place, usize)]) -> Place {
    let sides = [(1.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)];
    let places = [15.0, 30.0, 50.0, 75.0, 110.0].into_iter().flat_map(|far| {
        let (across, up) = (far + half.0, far + half.1);
        sides.map(|side| {
            let x = (x + side.0 * across).clamp(left + half.0, RIGHT - half.0);
            (x, (y + side.1 * up).clamp(TOP + half.1, BOTTOM - half.1))
        })
    });
    let hides =
        |a: Place, b: Place, size: Place| (a.0 - b.0).abs() < half.0 + size.0 && (a.1 - b.1).abs() < half.1 + size.1;
    let cost = |&place: &Place| -> usize {
        taken.iter().filter(|other| hides(place, other.0, other.1)).map(|other| other.2).sum()
    };
    places.min_by_key(cost).expect("there are places")
}

/// Places on a line, close enough that no label fits between them.
fn along(path: &[Place]) -> Vec<Place> {
    let between = |pair: &[Place]| {
        let ((x, y), (dx, dy)) = (pair[0], (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1));
        let steps = (dx.hypot(dy) / 6.0).ceil();
        (1..steps as usize).map(move |step| (x + dx * step as f64 / steps, y + dy * step as f64 / steps))
    };
    path.windows(2).flat_map(between).collect()
}

fn line(path: &[Place], class: &str) -> String {
    let path: Vec<String> = path.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    if path.len() < 2 { String::new() } else { format!(r#"<path class="line {class}" d="M{}"/>"#, path.join("L")) }
}

fn marker(shape: &str, class: &str, (x, y): Place, scale: f64, tooltip: &str) -> String {
    let place = format!("translate({x:.1} {y:.1}) scale({scale})");
    format!(r#"<path class="marker {class}" fill="currentColor" transform="{place}" d="{shape}">{tooltip}</path>"#)
}

fn tooltip(name: &str, point: &Point) -> String {
    let names: Vec<&str> = [name, &point.label].into_iter().filter(|name| !name.is_empty()).collect();
    format!("<title>{} ({:.3}, {:.3})</title>", escape(&names.join(": ")), point.x, point.y)
}

/// The text, cut if it has no room.
fn text(text: &str, class: &str, (x, y): Place, anchor: &str, size: f64, room: f64) -> String {
    let mut cut = text.to_owned();
    while wide(&cut, size) > room {
        cut.pop();
    }
    let text = escape(&cut) + if cut.len() < text.len() { "…" } else { "" };
    let place = format!(r#"x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}""#);
    format!(r#"<text class="{class}" fill="currentColor" {place}>{text}</text>"#)
}

/// About how wide a text is, rather too wide: the font is not known.
fn wide(text: &str, size: f64) -> f64 {
    text.chars().map(|char| if char < '\u{2e80}' { 0.56 } else { 1.0 }).sum::<f64>() * size
}

fn escape(text: &str) -> String {
    // XML has no place for control characters.
    let text = text.replace(|char: char| char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}'), " ");
    let pairs = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&#39;")];
    pairs.into_iter().fold(text, |text, (char, escaped)| text.replace(char, escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(curves: &[&[(f64, f64)]], marks: &[(f64, f64)]) -> Plot {
        let point = |&(x, y): &(f64, f64)| Point { x, y, label: format!("α {x:.1}") };
        let points = |points: &[(f64, f64)]| points.iter().map(point).collect();
        let [title, x_label, y_label] = ["Title", "Speedup (×)", "BLEU"].map(str::to_owned);
        let curves = curves.iter().map(|curve| Curve { name: "policy".to_owned(), points: points(curve) }).collect();
        Plot { title, x_label, y_label, curves, marks: points(marks) }
    }

    /// The figure, whose tags are closed, in turn, whose attributes are whole, and which has numbers only.
    fn checked(plot: &Plot) -> String {
        let (svg, mut open) = (plot.svg(), Vec::new());
        for tag in svg.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').expect("a tag ends");
            assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{tag} {text}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.extend(tag.split(' ').next()),
            }
        }
        assert!(open.is_empty() && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        svg
    }

    #[test]
    fn front_with_ties() {
        let points = [(1.0, 9.0), (2.0, 8.0), (2.0, 8.0), (2.0, 7.0), (1.5, 8.0), (3.0, 1.0), (f64::NAN, 10.0)];
        assert_eq!(pareto(&points), [true, true, true, false, false, true, false]);
        assert_eq!(pareto(&[(1.0, 1.0), (f64::INFINITY, 2.0)]), [true, false]);
        assert!(pareto(&[]).is_empty());
    }

    #[test]
    fn degenerate() {
        let grid: Vec<(f64, f64)> = (0..80).map(|i| (f64::from(i % 10), f64::from(i / 10))).collect();
        let odd = [(f64::NAN, 1.0), (1.0, f64::INFINITY), (1e300, -1e300), (1e-300, 0.0)];
        let same = [(2.0, 2.0); 20];
        for curve in [&[][..], &same[..1], &same[..3], &same, &odd, &grid, &[(-1.0, -0.5), (9e8, 1e-9)]] {
            for marks in [&[][..], &[(1.0, 30.0)], &same[..5], &odd] {
                for curves in [&[][..], &[curve], &[curve; 25]] {
                    checked(&plot(curves, marks));
                }
            }
        }
        assert!(!plot(&[&odd[..3]], &odd[..3]).svg().contains("policy"), "what has no points is in no legend");
    }

    #[test]
    fn escaped_and_cut() {
        let mut plot = plot(&[&[(1.0, 2.0)]], &[(1.0, 2.0)]);
        plot.title = "<&>\"'\u{1}".to_owned();
        plot.curves[0].name = "a < b".to_owned();
        plot.marks[0].label = "]]></text>".to_owned();
        plot.y_label = "ü".repeat(500);
        let svg = checked(&plot);
        for text in ["&lt;&amp;&gt;&quot;&#39; ", "a &lt; b", "]]&gt;&lt;/text&gt;", "ü…"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn far_speedups_are_drawn_by_their_logarithms() {
        let ((_, ticks), scale) = speed_axis([0.9, 1.5, 12.0].into_iter());
        assert!(ticks.iter().map(|tick| &*tick.1).eq(["1", "1.5", "2", "3", "5", "7", "10"]));
        assert_eq!(scale(1.0), 0.0);
        let ((_, ticks), _) = speed_axis([0.15, 0.8].into_iter());
        assert!(ticks.iter().map(|tick| &*tick.1).eq(["0.15", "0.2", "0.3", "0.5", "0.7"]));
        assert_eq!(speed_axis([0.9, 3.0].into_iter()).1(3.0), 3.0);
    }

    #[test]
    fn round_ticks() {
        let ticks = |low, high| axis([low, high].into_iter(), 8.0).1.into_iter().map(|tick| tick.1);
        assert!(ticks(30.0, 38.8).eq(["30", "32", "34", "36", "38"]));
        assert!(ticks(-0.1, 0.1).eq(["−0.10", "−0.05", "0.00", "0.05", "0.10"]));
    }
}
