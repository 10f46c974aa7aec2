import { useEffect, useReducer } from "preact/hooks";
import type { AppState } from "./app_state";
import type { Generation } from "./generation";

function useRerender(): () => void {
  return useReducer((n: number, _: void) => n + 1, 0)[1] as () => void;
}

export function useChanges(app: AppState): void {
  const rerender = useRerender();
  useEffect(() => app.subscribe(rerender), [app]);
}

/** So many times the duration of a rendering passes before the next: long blocks are drawn less often than each frame. */
const REST = 5;

/** Renders again when the answer has grown, at most once per frame. */
export function useGrowth(generation: Generation | null): void {
  const rerender = useRerender();
  useEffect(() => {
    if (!generation) return;
    let frame = 0;
    let notBefore = 0;
    const draw = (now: number) => {
      frame = 0;
      if (now < notBefore) return schedule();
      const start = performance.now();
      rerender();
      // Preact renders in a microtask of its own, queued before this one.
      queueMicrotask(() => (notBefore = performance.now() + REST * (performance.now() - start)));
    };
    const schedule = () => {
      frame ||= requestAnimationFrame(draw);
    };
    const off = generation.onText(schedule);
    schedule();
    return () => {
      off();
      cancelAnimationFrame(frame);
    };
  }, [generation]);
}
