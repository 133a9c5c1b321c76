from distill_ray.models import LlamaCppLLM
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, StepResources
from distill_ray.steps.tasks import TextGeneration

with Pipeline(name="quickstart") as pipeline:
    load_data = LoadDataFromDicts(data=[{"instruction": "How much is 2+2?"}])
    generation = TextGeneration(
        llm=LlamaCppLLM(model="smollm2-135m-instruct", generation_kwargs={"max_new_tokens": 64}),
        resources=StepResources(replicas=1, cpus=1),
    )
    load_data >> generation

if __name__ == "__main__":
    distiset = pipeline.run()
    print(distiset["default"]["train"].to_list())
