//! The chart: what a month costs by lines a day, and which parts it goes into, as SVG.
//!
//! Deliberately absent: a background. Ink and colours are of middle brightness, to be read on white and on black.
use plotters::coord::Shift;
use plotters::prelude::*;

use super::model::{COMPONENTS, VOLUMES};
use super::{CostError, Report};

const SIZE: (u32, u32) = (860, 660);
/// Height of the upper part.
const UPPER: u32 = 380;
const INK: RGBColor = RGBColor(0x6e, 0x76, 0x81);
const OLD: RGBColor = RGBColor(0xd1, 0x60, 0x3d);
const NEW: RGBColor = RGBColor(0x2f, 0x81, 0xf7);
/// Below the lowest point there is so much room for its label, as a factor.
const ROOM: f64 = 2.0;
/// A colour for each of the components.
const PARTS: [RGBColor; 5] = [
    RGBColor(0xbf, 0x87, 0x00),
    RGBColor(0x1f, 0x9a, 0xaa),
    RGBColor(0x8b, 0x5c, 0xd6),
    RGBColor(0xc2, 0x52, 0x8b),
    RGBColor(0x2d, 0x9c, 0x53),
];
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

impl Report {
    /// The chart as an SVG document.
    pub fn svg(&self) -> Result<String, CostError> {
        let mut svg = String::new();
        let drawn = self.draw(&mut svg);
        drawn.map_err(|error| CostError::Chart(error.to_string()))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Drawn {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let (upper, lower) = root.split_vertically(UPPER);
        self.lines(&upper)?;
        self.parts(&lower)?;
        root.present()?;
        Ok(())
    }

    /// Both totals over the volumes, on logarithmic axes.
    fn lines(&self, area: &Area<'_>) -> Drawn {
        let (mut least, mut most) = (f64::INFINITY, 1.0_f64);
        for total in &self.totals {
            (least, most) = (least.min(total.usd), most.max(total.usd));
        }
        // whole powers of ten around all points
        let bottom = 10_f64.powf((least / ROOM).max(0.01).log10().floor());
        let top = 10_f64.powf(most.log10().ceil());
        let mut chart = ChartBuilder::on(area)
            .caption("$ a month by lines a day", (FONT, 20).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(34)
            .y_label_area_size(84)
            .build_cartesian_2d((7e5..1.5e10_f64).log_scale(), (bottom..top).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(INK.mix(0.0))
            .bold_line_style(INK.mix(0.25))
            .axis_style(INK)
            .label_style((FONT, 14).into_font().color(&INK))
            .x_labels(VOLUMES.len())
            .x_label_formatter(&|lines| {
                let named = VOLUMES.iter().find(|(_, volume)| (volume / lines - 1.0).abs() < 0.01);
                named.map_or_else(String::new, |(name, _)| (*name).to_owned())
            })
            .y_label_formatter(&|usd| format!("$ {}", super::number::plain(*usd)))
            .draw()?;
        for (pipeline, name, color) in [("old", "old pipeline", OLD), ("new", "this pipeline", NEW)] {
            let points: Vec<_> = self.of(pipeline).map(|total| (total.lines_per_day, total.usd)).collect();
            chart
                .draw_series(LineSeries::new(points.clone(), color.stroke_width(3)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(3)));
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, color.filled())))?;
            // above the upper line, below the lower one
            let offset = if pipeline == "old" { -20 } else { 10 };
            chart.draw_series(points.iter().map(|(lines, usd)| {
                let label = super::number::plain(usd.round());
                EmptyElement::at((*lines, *usd))
                    + Text::new(label, (-16, offset), (FONT, 13).into_font().color(&color))
            }))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .margin(12)
            .label_font((FONT, 15).into_font().color(&INK))
            .border_style(INK.mix(0.25))
            .draw()?;
        Ok(())
    }

    /// For each volume, how the two totals are made up.
    fn parts(&self, area: &Area<'_>) -> Drawn {
        let text = |size: i32| (FONT, size).into_font().color(&INK);
        let title = "What it goes into, at each volume: old pipeline left, this pipeline right";
        area.draw(&Text::new(title, (14, 8), text(17)))?;
        let (width, height) = area.dim_in_pixel();
        let (left, right, top, bottom) = (98, width as i32 - 150, 44, height as i32 - 34);
        let slot = (right - left) / VOLUMES.len() as i32;
        let bar = slot * 2 / 5;
        for (index, (name, _)) in VOLUMES.iter().enumerate() {
            let start = left + slot * index as i32;
            for (side, pipeline) in ["old", "new"].into_iter().enumerate() {
                let Some(total) = self.of(pipeline).nth(index) else { continue };
                let x = start + side as i32 * (bar + 4);
                let mut below = 0.0;
                for (component, color) in COMPONENTS.iter().zip(PARTS) {
                    let share = total.components.get(component).copied().unwrap_or_default() / total.usd;
                    let y = |share: f64| bottom - ((bottom - top) as f64 * share).round() as i32;
                    area.draw(&Rectangle::new([(x, y(below + share)), (x + bar, y(below))], color.filled()))?;
                    below += share;
                }
            }
            area.draw(&Text::new(*name, (start + bar - 14, bottom + 8), text(14)))?;
        }
        for (share, label) in [(0.0, "0 %"), (0.5, "50 %"), (1.0, "100 %")] {
            let y = bottom - ((bottom - top) as f64 * share).round() as i32;
            area.draw(&Text::new(label, (left - 50, y - 7), text(14)))?;
        }
        for (index, (component, color)) in COMPONENTS.iter().zip(PARTS).enumerate() {
            let y = top + 26 * index as i32;
            area.draw(&Rectangle::new([(right + 16, y), (right + 30, y + 14)], color.filled()))?;
            area.draw(&Text::new(*component, (right + 38, y), text(14)))?;
        }
        Ok(())
    }
}
