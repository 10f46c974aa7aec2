// Drawn on a 16 by 16 grid, in the colour of the text. The text beside them or the label of the button names them.
const PATHS = {
  plus: "M8 3v10M3 8h10",
  list: "M2.5 4h11M2.5 8h11M2.5 12h7",
  sliders: "M2 5h6m4 0h2M2 11h2m4 0h6M10 3v4M6 9v4",
  close: "M4 4l8 8M12 4l-8 8",
  send: "M8 13V3.5M3.5 7.5 8 3l4.5 4.5",
  left: "M9.5 4 5.5 8l4 4",
  right: "M6.5 4l4 4-4 4",
  down: "M8 3v9.5M3.5 8.5 8 13l4.5-4.5",
  pencil: "M3 13l.6-2.6L10.8 3.200l2 2L5.600 12.400 3 13z",
  bin: "M3 4.500h10M6.500 4.500v-1.500h3v1.500M4.500 4.500l.5 8.500h6l.5-8.500",
  export: "M8 10V2.500M5 5l3-2.500L11 5M3 10v3h10v-3",
  import: "M8 2.500V10M5 7.500 8 10l3-2.500M3 10v3h10v-3",
  auto: "M8 2.500a5.500 5.500 0 1 0 0 11a5.500 5.500 0 1 0 0-11M8 2.500v11M8 5h4.500M8 8h5.500M8 11h4.500",
  light: "M8 5.500a2.500 2.500 0 1 0 0 5a2.500 2.500 0 1 0 0-5M8 1.500v1.500M8 13v1.500M1.500 8h1.500M13 8h1.500M3.400 3.400l1 1M11.600 11.600l1 1M3.400 12.600l1-1M11.600 4.400l1-1",
  dark: "M13 9.500A5.500 5.500 0 0 1 6.500 3 5.500 5.500 0 1 0 13 9.500z",
};

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function StopIcon() {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
      <rect x="4" y="4" width="8" height="8" rx="1.5" fill="currentColor" stroke="none" />
    </svg>
  );
}
